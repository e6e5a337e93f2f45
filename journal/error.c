/*
 * Errors: one line that names what is wrong, which, and what to do
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdarg.h>
#include <stdio.h>

#include <ttjournal/ttjournal.h>

int tt_fail(struct tt_error *err, int code, int os_errno, const char *fmt, ...)
{
    va_list ap;

    if (err) {
        err->code = code;
        err->os_errno = os_errno;
        va_start(ap, fmt);
        vsnprintf(err->message, sizeof(err->message), fmt, ap);
        va_end(ap);
    }
    return -code;
}
