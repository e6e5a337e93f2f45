/*
 * The superblock: what never changes after a journal was created
 *
 * Two copies, written once.  Either alone is enough; a reader uses the first
 * whole one and says how many are not.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <inttypes.h>
#include <string.h>

#include <ttjournal/ttjournal.h>

static bool is_power_of_two(uint64_t v)
{
    return v && !(v & (v - 1));
}

void tt_super_init(struct tt_super *super, const uint8_t uuid[TT_UUID_SIZE],
                   uint64_t salt, uint64_t disk_size, uint32_t alignment,
                   int64_t now)
{
    *super = (struct tt_super){
        .created = now,
        .disk_size = disk_size,
        .segments_offset = TT_SEGMENTS_OFFSET,
        .segment_size = TT_SEGMENT_DEFAULT,
        .alignment =
            alignment < TT_ALIGNMENT_MIN ? TT_ALIGNMENT_MIN : alignment,
        .sign_type = TT_SIGN_NONE,
        .salt = salt,
    };
    memcpy(super->uuid, uuid, TT_UUID_SIZE);
}

int tt_super_check(const struct tt_super *super, struct tt_error *err)
{
    if (super->alignment < TT_ALIGNMENT_MIN ||
        super->alignment > TT_ALIGNMENT_MAX ||
        !is_power_of_two(super->alignment)) {
        return tt_fail(err, TT_EINVAL, 0,
                       "alignment %" PRIu32 ": must be a power of two from "
                       "%u to %u",
                       super->alignment, TT_ALIGNMENT_MIN, TT_ALIGNMENT_MAX);
    }
    if (super->segment_size < TT_SEGMENT_MIN ||
        super->segment_size > TT_SEGMENT_MAX ||
        !is_power_of_two(super->segment_size)) {
        return tt_fail(err, TT_EINVAL, 0,
                       "segment size %" PRIu64 ": must be a power of two "
                       "from %llu to %llu",
                       super->segment_size, TT_SEGMENT_MIN, TT_SEGMENT_MAX);
    }
    if (super->segments_offset != TT_SEGMENTS_OFFSET) {
        return tt_fail(err, TT_EINVAL, 0,
                       "segments begin at %" PRIu64 ": must be %llu",
                       super->segments_offset, TT_SEGMENTS_OFFSET);
    }
    if (super->disk_size % TT_SECTOR || super->disk_size > TT_DISK_SIZE_MAX) {
        return tt_fail(err, TT_EINVAL, 0,
                       "disk size %" PRIu64 ": must be a multiple of %u, at "
                       "most 2^62",
                       super->disk_size, TT_SECTOR);
    }
    return 0;
}

static void encode_copy(const struct tt_super *s, uint64_t offset,
                        uint8_t *area)
{
    struct tt_superblock sb = {
        .version = tt_put32(TT_FORMAT_VERSION),
        .size = tt_put32(sizeof(sb)),
        .feature_compat = tt_put64(s->feature_compat),
        .feature_ro_compat = tt_put64(s->feature_ro_compat),
        .feature_incompat = tt_put64(s->feature_incompat),
        .offset = tt_put64(offset),
        .created = tt_put64((uint64_t)s->created),
        .disk_size = tt_put64(s->disk_size),
        .segments_offset = tt_put64(s->segments_offset),
        .segment_size = tt_put64(s->segment_size),
        .alignment = tt_put32(s->alignment),
        .checksum_type = tt_put16(TT_CHECKSUM_XXH3_64),
        .sign_type = tt_put16(s->sign_type),
        .salt = tt_put64(s->salt),
    };

    memcpy(sb.magic, TT_SUPERBLOCK_MAGIC, TT_MAGIC_SIZE);
    memcpy(sb.uuid, s->uuid, TT_UUID_SIZE);
    memcpy(sb.public_key, s->public_key, sizeof(sb.public_key));
    sb.checksum =
        tt_put64(tt_checksum(&sb, offsetof(struct tt_superblock, checksum)));
    memcpy(area + offset, &sb, sizeof(sb));
}

void tt_super_encode(const struct tt_super *super,
                     uint8_t ret_area[static TT_SEGMENTS_OFFSET])
{
    memset(ret_area, 0, TT_SEGMENTS_OFFSET);
    encode_copy(super, 0, ret_area);
    encode_copy(super, TT_SUPERBLOCK_COPY, ret_area);
}

/* Which of these a copy is decides what the user is told. */
enum copy_state {
    COPY_WHOLE,
    COPY_ALIEN,
    COPY_OLDER,
    COPY_NEWER,
    COPY_DAMAGED
};

static enum copy_state check_copy(const struct tt_superblock *sb,
                                  uint64_t offset)
{
    if (memcmp(sb->magic, TT_SUPERBLOCK_MAGIC, TT_MAGIC_SIZE)) {
        return COPY_ALIEN;
    }
    /* A newer version may put its checksum elsewhere: look at it first. */
    if (tt_get32(sb->version) > TT_FORMAT_VERSION) {
        return COPY_NEWER;
    }
    if (tt_get32(sb->size) != sizeof(*sb) || tt_get64(sb->offset) != offset ||
        tt_get64(sb->checksum) !=
            tt_checksum(sb, offsetof(struct tt_superblock, checksum))) {
        return COPY_DAMAGED;
    }
    return tt_get32(sb->version) < TT_FORMAT_VERSION ? COPY_OLDER : COPY_WHOLE;
}

static int decode(const struct tt_superblock *sb, struct tt_super *s,
                  struct tt_error *err)
{
    *s = (struct tt_super){
        .created = (int64_t)tt_get64(sb->created),
        .disk_size = tt_get64(sb->disk_size),
        .segments_offset = tt_get64(sb->segments_offset),
        .segment_size = tt_get64(sb->segment_size),
        .alignment = tt_get32(sb->alignment),
        .feature_compat = tt_get64(sb->feature_compat),
        .feature_ro_compat = tt_get64(sb->feature_ro_compat),
        .feature_incompat = tt_get64(sb->feature_incompat),
        .sign_type = tt_get16(sb->sign_type),
        .salt = tt_get64(sb->salt),
    };
    memcpy(s->uuid, sb->uuid, TT_UUID_SIZE);
    memcpy(s->public_key, sb->public_key, sizeof(s->public_key));

    if (s->feature_incompat & ~TT_INCOMPAT_KNOWN) {
        return tt_fail(err, TT_EFORMAT, 0,
                       "the journal uses features 0x%" PRIx64 " that this "
                       "version does not know: use a newer ttjournal",
                       s->feature_incompat & ~TT_INCOMPAT_KNOWN);
    }
    if (tt_get16(sb->checksum_type) != TT_CHECKSUM_XXH3_64) {
        return tt_fail(err, TT_EFORMAT, 0,
                       "the journal uses checksums of type %u that this "
                       "version does not know: use a newer ttjournal",
                       tt_get16(sb->checksum_type));
    }
    if (tt_super_check(s, err)) {
        if (err) {
            err->code = TT_EFORMAT;
        }
        return -TT_EFORMAT;
    }
    return 0;
}

static int read_copy(const struct tt_source *src, uint64_t offset,
                     struct tt_superblock *sb, enum copy_state *ret_state,
                     struct tt_error *err)
{
    uint64_t left = src->size > offset ? src->size - offset : 0;
    size_t length = left < sizeof(*sb) ? (size_t)left : sizeof(*sb);
    size_t magic = length < TT_MAGIC_SIZE ? length : TT_MAGIC_SIZE;
    int ret = length ? src->read(src->opaque, offset, sb, length) : 0;

    if (ret < 0) {
        *ret_state = COPY_DAMAGED;
        return tt_fail(err, TT_EIO, -ret,
                       "cannot read the superblock at %" PRIu64 ": %s", offset,
                       strerror(-ret));
    }
    if (length == sizeof(*sb)) {
        *ret_state = check_copy(sb, offset);
    } else {
        *ret_state = length && !memcmp(sb, TT_SUPERBLOCK_MAGIC, magic)
                         ? COPY_DAMAGED
                         : COPY_ALIEN;
    }
    return 0;
}

/* A bit counts as set if either copy has it. */
static void add_features(struct tt_superblock *sb,
                         const struct tt_superblock *other)
{
    sb->feature_compat = tt_put64(tt_get64(sb->feature_compat) |
                                  tt_get64(other->feature_compat));
    sb->feature_ro_compat = tt_put64(tt_get64(sb->feature_ro_compat) |
                                     tt_get64(other->feature_ro_compat));
    sb->feature_incompat = tt_put64(tt_get64(sb->feature_incompat) |
                                    tt_get64(other->feature_incompat));
}

/* Why there is no superblock. */
static int refuse(const enum copy_state state[2], struct tt_error *err)
{
    if (state[0] == COPY_NEWER || state[1] == COPY_NEWER) {
        return tt_fail(err, TT_EFORMAT, 0,
                       "the journal's format is newer than version %d: use a "
                       "newer ttjournal",
                       TT_FORMAT_VERSION);
    }
    if (state[0] == COPY_OLDER || state[1] == COPY_OLDER) {
        return tt_fail(err, TT_EFORMAT, 0,
                       "the journal's format is older than version %d, and "
                       "was never released: use the ttjournal that wrote it",
                       TT_FORMAT_VERSION);
    }
    if (state[0] == COPY_ALIEN && state[1] == COPY_ALIEN) {
        return tt_fail(err, TT_EFORMAT, 0,
                       "not a ttjournal journal: no superblock");
    }
    return tt_fail(err, TT_EDAMAGED, 0,
                   "no copy of the superblock is whole: the journal is cut "
                   "short or damaged at its beginning");
}

int tt_super_read(const struct tt_source *src, struct tt_super *ret_super,
                  unsigned *ret_damaged, struct tt_error *err)
{
    static const uint64_t places[2] = { 0, TT_SUPERBLOCK_COPY };
    struct tt_superblock sb[2];
    enum copy_state state[2];
    unsigned bad = 0;
    int ret = 0;

    if (src->size == 0) {
        return tt_fail(err, TT_EFORMAT, 0,
                       "the file is empty, not a journal: make one with "
                       "'ttjournal create'");
    }
    for (unsigned i = 0; i < 2; i++) {
        int failed = read_copy(src, places[i], &sb[i], &state[i], err);

        ret = failed ? failed : ret;
        bad += state[i] == COPY_DAMAGED || state[i] == COPY_ALIEN;
    }
    if (ret_damaged) {
        *ret_damaged = bad;
    }
    if (state[0] == COPY_WHOLE && state[1] == COPY_WHOLE) {
        add_features(&sb[0], &sb[1]);
    }
    if (state[0] != COPY_WHOLE && state[1] != COPY_WHOLE) {
        return ret < 0 ? ret : refuse(state, err);
    }
    ret = decode(&sb[state[0] == COPY_WHOLE ? 0 : 1], ret_super, err);
    if (ret == 0 && src->size < ret_super->segments_offset) {
        return tt_fail(err, TT_EDAMAGED, 0,
                       "the journal is cut short: it has %" PRIu64 " bytes, "
                       "and none has less than %" PRIu64,
                       src->size, ret_super->segments_offset);
    }
    return ret;
}

uint64_t tt_segment_offset(const struct tt_super *super, uint64_t segment)
{
    return super->segments_offset + segment * super->segment_size;
}

uint64_t tt_segment_at(const struct tt_super *super, uint64_t offset)
{
    return offset < super->segments_offset
               ? 0
               : (offset - super->segments_offset) / super->segment_size;
}
