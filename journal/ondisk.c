/*
 * Every size and offset of the format, asserted in one place
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stddef.h>

#include <ttjournal/format.h>

#define SIZE(type, bytes)                                                      \
    _Static_assert(sizeof(struct type) == (bytes), #type " has its size")
#define AT(type, field, bytes)                                                 \
    _Static_assert(offsetof(struct type, field) == (bytes),                    \
                   #type "." #field " is at its place")

SIZE(tt_superblock, 512);
AT(tt_superblock, feature_compat, 16);
AT(tt_superblock, uuid, 40);
AT(tt_superblock, offset, 56);
AT(tt_superblock, segment_size, 88);
AT(tt_superblock, alignment, 96);
AT(tt_superblock, public_key, 104);
AT(tt_superblock, salt, 136);
AT(tt_superblock, checksum, 504);

SIZE(tt_frame_header, 256);
AT(tt_frame_header, uuid, 8);
AT(tt_frame_header, offset, 24);
AT(tt_frame_header, chain, 48);
AT(tt_frame_header, session, 56);
AT(tt_frame_header, epoch, 80);
AT(tt_frame_header, durable_seq, 96);
AT(tt_frame_header, boottime, 120);
AT(tt_frame_header, disk_size, 136);
AT(tt_frame_header, alignment, 160);
AT(tt_frame_header, table_checksum, 184);
AT(tt_frame_header, salt, 192);
AT(tt_frame_header, first_live_segment, 232);
AT(tt_frame_header, header_checksum, 248);

SIZE(tt_record_header, 48);
AT(tt_record_header, time, 8);
AT(tt_record_header, disk_offset, 16);
AT(tt_record_header, payload_offset, 32);
AT(tt_record_header, compression, 44);

SIZE(tt_session_body, 88);
SIZE(tt_string, 4);
SIZE(tt_flush_body, 8);
SIZE(tt_clock_body, 56);
SIZE(tt_range, 16);
SIZE(tt_checkpoint_body, 40);
SIZE(tt_gap_body, 56);
SIZE(tt_damage_body, 32);
SIZE(tt_event_body, 8);
SIZE(tt_footer_body, 144);
AT(tt_footer_body, part, 120);
AT(tt_footer_body, frame_count, 136);
SIZE(tt_footer_frame, 16);
SIZE(tt_footer_entry, 22);
AT(tt_footer_entry, payload_offset, 16);
SIZE(tt_seal_body, 224);
AT(tt_seal_body, signature, 160);
