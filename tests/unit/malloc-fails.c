/*
 * malloc() that can fail: see malloc-fails.h
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "malloc-fails.h"

unsigned malloc_fails;
struct sim_world *malloc_world;
unsigned malloc_failures;

void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size)
{
    if (malloc_fails && sim_chance(malloc_world, malloc_fails)) {
        malloc_failures++;
        return NULL;
    }
    return __real_malloc(size);
}
