/*
 * How are numbers, names and JSON printed?
 *
 * What a journal holds was written by a guest or by whoever asked for a mark:
 * it must not be able to drive the reader's terminal, so control characters
 * are made visible, and JSON is written by json-glib alone.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>
#include <string.h>

#include "tool.h"

char *tool_size(uint64_t bytes)
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB" };
    double value = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < 1024) {
        return g_strdup_printf("%" PRIu64 " bytes", bytes);
    }
    while (value >= 1024 && unit + 1 < G_N_ELEMENTS(units)) {
        value /= 1024;
        unit++;
    }
    return g_strdup_printf("%" PRIu64 " bytes (%.1f %s)", bytes, value,
                           units[unit]);
}

char *tool_uuid(const uint8_t uuid[TT_UUID_SIZE])
{
    GString *s = g_string_new(NULL);

    for (int i = 0; i < TT_UUID_SIZE; i++) {
        g_string_append_printf(s, "%s%02x",
                               i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                               uuid[i]);
    }
    return g_string_free(s, FALSE);
}

/*
 * Could it upset a terminal: drive it, or change the order in which others are
 * shown?
 */
static bool is_unsafe(gunichar c)
{
    return g_unichar_iscntrl(c) || c == 0x061c || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

char *tool_visible(const char *text, size_t length)
{
    GString *s = g_string_new(NULL);
    const char *end = text + length;

    while (text < end) {
        gunichar c = g_utf8_get_char_validated(text, end - text);

        if (c < (gunichar)-2 && c != 0 && !is_unsafe(c)) {
            const char *next = g_utf8_next_char(text);

            g_string_append_len(s, text, next - text);
            text = next;
        } else {
            g_string_append_printf(s, "\\x%02x", (unsigned char)*text++);
        }
    }
    return g_string_free(s, FALSE);
}

void json_string(JsonBuilder *b, const char *name, const char *value)
{
    json_text(b, name, value ? value : "", value ? strlen(value) : 0);
}

void json_text(JsonBuilder *b, const char *name, const char *value,
               size_t length)
{
    g_autofree char *valid = g_utf8_make_valid(value, (gssize)length);

    json_builder_set_member_name(b, name);
    json_builder_add_string_value(b, valid);
}

/* JSON's integers end at 2^63 here: what is larger becomes a string. */
void json_int(JsonBuilder *b, const char *name, uint64_t value)
{
    g_autofree char *text = NULL;

    json_builder_set_member_name(b, name);
    if (value <= INT64_MAX) {
        json_builder_add_int_value(b, (gint64)value);
        return;
    }
    text = g_strdup_printf("%" PRIu64, value);
    json_builder_add_string_value(b, text);
}

void json_hex(JsonBuilder *b, const char *name, uint64_t value)
{
    g_autofree char *text = g_strdup_printf("%016" PRIx64, value);

    json_string(b, name, text);
}

void json_bool(JsonBuilder *b, const char *name, bool value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_boolean_value(b, value);
}

void json_time(JsonBuilder *b, const char *name, int64_t value)
{
    char buf[TT_TIME_SIZE];

    json_string(b, name, tt_time_format(value, buf));
}

/* Nor may JSON: json-glib leaves much of that as it is. */
static void print_escaped(const char *text)
{
    for (const char *p = text; *p != '\0'; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        if (c != '\n' && is_unsafe(c)) { /* in a string, then */
            printf("\\u%04x", (unsigned)c);
        } else {
            fwrite(p, 1, (size_t)(g_utf8_next_char(p) - p), stdout);
        }
    }
    putchar('\n');
}

void json_print(JsonBuilder *b, bool pretty)
{
    g_autoptr(JsonGenerator) generator = json_generator_new();
    g_autoptr(JsonNode) root = json_builder_get_root(b);
    g_autofree char *text = NULL;

    json_generator_set_pretty(generator, pretty);
    json_generator_set_root(generator, root);
    text = json_generator_to_data(generator, NULL);
    print_escaped(text);
    g_object_unref(b);
}
