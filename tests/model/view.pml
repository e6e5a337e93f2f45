/*
 * A view's reader beside the recorder
 *
 * The reader looks a block up, reads the live disk if the journal has no
 * version of it, and looks up again, while a guest writes, blocks are captured
 * and written back, and the writer's host crashes and recovers.  The reader is
 * on another host, and outlives its power cuts.  Its view is of a moment that
 * a durable_seq which it saw covers.  What it reads must be what the disk held
 * then, or an error if that is damaged (promises 1 and 5).
 *
 * One block; a frame is one record, number SEQ in place SEQ - 1.  The writer
 * keeps to the rules of core.pml, and recovery is one step.  Names are those of
 * journal/view.c and docs/journal-format.md.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* ---- bounds -------------------------------------------------------------- */

#ifndef FRAMES
#define FRAMES 6
#endif
#ifndef WRITES
#define WRITES 2
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
/* blocks captured twice */
#ifndef SECONDS
#define SECONDS 1
#endif
/* durable frames that are destroyed */
#ifndef ROT
#define ROT 0
#endif

/* ---- rules that can be left out ------------------------------------------ */

/* The reader looks up again after it read the disk, in all that is visible. */
#ifndef LOOK_UP_ONCE
#define LOOK_UP_ONCE 0
#endif
#ifndef SECOND_IN_OLD_TAIL
#define SECOND_IN_OLD_TAIL 0
#endif
#ifndef SECOND_IN_DURABLE
#define SECOND_IN_DURABLE 0
#endif
/* The PREIMAGE is durable before its block changes. */
#ifndef PREIMAGE_UNDURABLE
#define PREIMAGE_UNDURABLE 0
#endif
/* The first PREIMAGE wins. */
#ifndef LAST_PREIMAGE
#define LAST_PREIMAGE 0
#endif
/* A moment that is not durable is provisional: it may change. */
#ifndef BIND_UNDURABLE
#define BIND_UNDURABLE 0
#endif
/* Damage may hide a PREIMAGE: do not capture again, do not ask the disk. */
#ifndef CAPTURE_AGAIN
#define CAPTURE_AGAIN 0
#endif
#ifndef DISK_DESPITE_DAMAGE
#define DISK_DESPITE_DAMAGE 0
#endif

/*
 * Not a rule: a reader that takes a PREIMAGE from behind damage.  It depends on
 * the writer's not capturing again.
 */
#ifndef BEHIND_DAMAGE
#define BEHIND_DAMAGE 0
#endif

/* ---- the journal and the disk -------------------------------------------- */

#define NOTHING 0
#define WRITE 1
#define PREIMAGE 2
#define DAMAGED 3

#define ORIGINAL 7 /* what the block held at first; writes are 1, 2 … */
#define EIO 8

/* What any host reads of the journal, as the writer's crashes leave it */
byte kind[FRAMES], data[FRAMES], durable[FRAMES], session[FRAMES];
byte disk = ORIGINAL;

/* ---- the writer ---------------------------------------------------------- */

byte last_seq, durable_seq, this_session = 1;
byte captured; /* the PREIMAGE's number, or 0 */
byte on_disk;  /* newest version that was written */
byte writes, seconds, crashes, rotted;

/* ---- the reader ---------------------------------------------------------- */

byte bound; /* the view's sequence number */
byte truth; /* what it must show */

/* An assertion that fails prints which promise is broken; always 0. */
hidden byte exact, damage_is_found;

hidden byte i, n, limit, newest, found;

inline append(k, d)
{
    kind[last_seq] = k;
    data[last_seq] = d;
    durable[last_seq] = durable_seq;
    session[last_seq] = this_session;
    last_seq++
}

inline take_and_write()
{
    newest = 0;
    for (i : 1 .. FRAMES) {
        if
        :: i <= durable_seq && kind[i - 1] == WRITE -> newest = i
        :: else
        fi
    }
    if
    :: newest > on_disk && captured &&
       (captured <= durable_seq || PREIMAGE_UNDURABLE) ->
        disk = data[newest - 1];
        on_disk = newest
    :: else
    fi
}

/*
 * Scan, rewrite, flush, capture and redo in one: nobody reads in between, as
 * each step but the redo only makes more durable what is visible.
 */
inline recover()
{
    last_seq = 0;
    captured = 0;
    do
    :: last_seq < FRAMES && kind[last_seq] != NOTHING ->
        if
        :: kind[last_seq] == PREIMAGE && !captured -> captured = last_seq + 1
        :: kind[last_seq] == DAMAGED && !captured && !CAPTURE_AGAIN ->
            captured = last_seq + 1
        :: else
        fi;
        last_seq++
    :: else -> break
    od;
    /* stale frames do not come back: see scan.pml */
    for (i : 1 .. FRAMES) {
        if
        :: i > last_seq ->
            kind[i - 1] = NOTHING;
            data[i - 1] = 0;
            durable[i - 1] = 0;
            session[i - 1] = 0
        :: else
        fi
    }
    durable_seq = last_seq;
    this_session++;
    on_disk = 0
}

active proctype writer()
{
    byte p;

    do
    :: writes < WRITES && last_seq < FRAMES ->
        d_step {
            writes++;
            printf("write %d, record %d\n", writes, last_seq + 1);
            append(WRITE, writes)
        }
    :: writes > 0 && !captured && last_seq < FRAMES ->
        d_step {
            printf("capture %d, record %d\n", disk, last_seq + 1);
            captured = last_seq + 1;
            append(PREIMAGE, disk)
        }
    /* a second PREIMAGE, which no reader may take */
    :: captured && seconds < SECONDS && last_seq < FRAMES ->
        d_step {
            printf("capture %d again, record %d\n", disk, last_seq + 1);
            seconds++;
            append(PREIMAGE, disk)
        }
    :: durable_seq < last_seq ->
        d_step {
            durable_seq = last_seq;
            printf("journal flushed, durable_seq %d\n", durable_seq)
        }
    :: d_step { take_and_write(); printf("disk: %d\n", disk) }

    /* a durable frame that a later one vouches for is destroyed */
    :: rotted < ROT && last_seq > 0 ->
        atomic {
            if
            :: durable[last_seq - 1] > 0 ->
                p = 0;
                do
                :: p + 1 < durable[last_seq - 1] -> p++
                :: break
                od;
                printf("record %d is damaged\n", p + 1);
                kind[p] = DAMAGED;
                data[p] = 0;
                rotted++;
                p = 0
            :: else
            fi
        }

    :: crashes < CRASHES ->
        atomic {
            printf("crash\n");
            crashes++;
            p = durable_seq;
            do
            :: p < last_seq ->
                if
                :: skip
                :: kind[p] = NOTHING
                fi;
                p++
            :: else -> break
            od;
            p = 0;
            d_step { recover(); skip }
        }
    od
}

/* view(@bound) by the first @limit frames, to @value; NOTHING: not there */
inline look(value)
{
    value = NOTHING;
    for (i : 1 .. FRAMES) {
        if
        :: i <= bound && i <= limit && kind[i - 1] == WRITE ->
            value = data[i - 1]
        :: i <= bound && i <= limit && kind[i - 1] == DAMAGED ->
            value = EIO
        :: else
        fi
    }
    found = value != NOTHING;
    n = NOTHING;
    for (i : 1 .. FRAMES) {
        if
        :: i <= limit && !found && kind[i - 1] == PREIMAGE &&
           (value == NOTHING || LAST_PREIMAGE) ->
            value = data[i - 1]
        :: i <= limit && value == NOTHING && kind[i - 1] == DAMAGED &&
           !DISK_DESPITE_DAMAGE ->
            if
            :: BEHIND_DAMAGE -> n = EIO /* unless there is one behind it */
            :: else -> value = EIO
            fi
        :: else
        fi
    }
    if
    :: value == NOTHING && n == EIO -> value = EIO
    :: else
    fi
}

/* The largest durable_seq in a visible header, to @limit */
inline visible_durable()
{
    limit = 0;
    for (i : 1 .. FRAMES) {
        if
        :: kind[i - 1] != NOTHING && kind[i - 1] != DAMAGED &&
           durable[i - 1] > limit && i <= last_seq ->
            limit = durable[i - 1]
        :: else
        fi
    }
}

active proctype reader()
{
    byte value, from_disk, old_tail;

    /* open the view */
    d_step {
        if
        :: BIND_UNDURABLE -> limit = last_seq
        :: else -> visible_durable()
        fi;
        bound = limit;
        truth = ORIGINAL;
        for (i : 1 .. FRAMES) {
            if
            :: i <= bound && kind[i - 1] == WRITE -> truth = data[i - 1]
            :: i <= bound && kind[i - 1] == DAMAGED -> truth = EIO
            :: else
            fi
        }
        printf("view of %d: %d\n", bound, truth)
    }
    do
    :: d_step {
            limit = last_seq;
            old_tail = last_seq;
            look(value);
            printf("looked up: %d\n", value)
        }
        if
        :: value == NOTHING ->
            d_step {
                from_disk = disk;
                printf("read from the disk: %d\n", from_disk)
            }
            d_step {
                limit = last_seq;
                if
                :: SECOND_IN_OLD_TAIL -> limit = old_tail
                :: SECOND_IN_DURABLE -> visible_durable()
                :: else
                fi;
                if
                :: !LOOK_UP_ONCE -> look(value)
                :: else
                fi;
                if
                :: value == NOTHING -> value = from_disk
                :: else
                fi;
                printf("looked up again: %d\n", value)
            }
        :: else
        fi;
        d_step {
            assert(damage_is_found || truth != EIO || value == EIO);
            assert(exact || value == truth || value == EIO && rotted);
            value = 0;
            from_disk = 0;
            old_tail = 0
        }
    od
}
