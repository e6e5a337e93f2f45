/*
 * malloc() that can fail, for what is linked with --wrap=malloc
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef MALLOC_FAILS_H
#define MALLOC_FAILS_H

#include "unit.h"

extern unsigned malloc_fails; /* percent */
extern struct sim_world *malloc_world;
extern unsigned malloc_failures;

void *__real_malloc(size_t size); /* never does */

#endif
