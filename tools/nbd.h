/*
 * Devices of the kernel's nbd
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TTJOURNAL_NBD_H
#define TTJOURNAL_NBD_H

#include "view.h"

/* Attaches what the first server serves at @socket, as v->device. */
int nbd_attach(struct view *v, const char *socket, bool read_only);
/* Detaches v->device, unless it is another's by now. */
int nbd_detach(const struct view *v);

#endif
