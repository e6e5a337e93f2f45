/*
 * The recorder as the disk's write-ahead log
 *
 * A guest writes BLOCKS blocks; the driver appends frames, flushes the journal,
 * writes back what is durable, flushes the disk and appends CHECKPOINTs; kill
 * -9 and power cuts come at any moment, in recovery too; recovery follows
 * docs/journal-format.md.  The promises of docs/design.md are the assertions.
 * Names are the code's:
 *
 *   plan, commit, flushed      tt_writer_plan() …, journal/append.c
 *   take, written, refused,
 *   level                      tt_pending_take() …, ttjournal/pending.h
 *   scan, rewrites, redo,
 *   samples, captured          tt_scan_run(), tt_recovery_run()
 *   durable_seq, level_seq,
 *   in_flight, journal_error   the driver's and the writer's fields
 *
 * One frame holds one record and is number SEQ in place SEQ - 1.  (A frame with
 * more is there or not as a whole, as one with a single record is.)  The chain
 * value is the session of the frame before: weaker than the code's, which is a
 * checksum of that frame's header.  Each write has a value of its own, so
 * values tell versions; 0 is what the disk held at first.
 *
 * What is acknowledged or flushed as soon as the rules allow it is the worst
 * case, so the model has no delay there.  Each rule can be left out, with
 * -DNAME=1; tests/model/check has the list, and what must then be refuted.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* ---- bounds: numbers below 8, as each is one octal digit of a frame ------ */

#ifndef BLOCKS
#define BLOCKS 2
#endif
#ifndef WRITES
#define WRITES 2
#endif
#ifndef FRAMES
#define FRAMES 5
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 1
#endif
/* failing flushes and refused writes, of journal and disk together */
#ifndef FAILURES
#define FAILURES 0
#endif
/* appends under way at once; the driver has one, and may have two */
#ifndef APPENDS
#define APPENDS 1
#endif
/* disk-flush=guest; else lazy */
#ifndef GUEST
#define GUEST 1
#endif

/* ---- rules that can be left out ------------------------------------------ */

/* Acknowledge in order, after the frame is complete. */
#ifndef ACK_AT_PLAN
#define ACK_AT_PLAN 0
#endif
#ifndef ACK_UNORDERED
#define ACK_UNORDERED 0
#endif
/* A flush of the journal covers what was complete when it was issued. */
#ifndef DURABLE_AT_ISSUE
#define DURABLE_AT_ISSUE 0
#endif
#ifndef DURABLE_AT_RETURN
#define DURABLE_AT_RETURN 0
#endif
/* After a failed flush all since the last good one is written again. */
#ifndef NO_JOURNAL_REWRITE
#define NO_JOURNAL_REWRITE 0
#endif
#ifndef NO_DISK_REWRITE
#define NO_DISK_REWRITE 0
#endif
/* A guest's flush: the journal, and with disk-flush=guest the disk. */
#ifndef FLUSH_NOTHING
#define FLUSH_NOTHING 0
#endif
#ifndef FLUSH_JOURNAL_ONLY
#define FLUSH_JOURNAL_ONLY 0
#endif
/* Write back only what is durable. */
#ifndef TAKE_UNDURABLE
#define TAKE_UNDURABLE 0
#endif
/* take() overlaps nothing that is in flight. */
#ifndef TAKE_OVERLAPPING
#define TAKE_OVERLAPPING 0
#endif
/* What the disk refused does not go over what is newer. */
#ifndef REFUSED_OVER_NEWER
#define REFUSED_OVER_NEWER 0
#endif
/* The PREIMAGE is durable before its block changes. */
#ifndef NO_PREIMAGE
#define NO_PREIMAGE 0
#endif
#ifndef PREIMAGE_UNDURABLE
#define PREIMAGE_UNDURABLE 0
#endif
/* The level is taken when the disk's flush is issued, used when it returned. */
#ifndef LEVEL_AT_RETURN
#define LEVEL_AT_RETURN 0
#endif
/* What is replaced is level once a newer version is on the disk. */
#ifndef LEVEL_REPLACED
#define LEVEL_REPLACED 0
#endif
#ifndef LEVEL_IN_FLIGHT
#define LEVEL_IN_FLIGHT 0
#endif
/* CHECKPOINT comes after the disk's flush; its map is as of its own place. */
#ifndef CHECKPOINT_UNFLUSHED
#define CHECKPOINT_UNFLUSHED 0
#endif
#ifndef MAP_AS_OF_LEVEL
#define MAP_AS_OF_LEVEL 0
#endif
/* Frames link; each session has a number of its own. */
#ifndef NO_CHAIN
#define NO_CHAIN 0
#endif
#ifndef SAME_SESSION
#define SAME_SESSION 0
#endif
/* Recovery: rewrite what is not vouched for, flush; capture, flush; redo. */
#ifndef RECOVER_NO_REWRITE
#define RECOVER_NO_REWRITE 0
#endif
#ifndef RECOVER_NO_FLUSH
#define RECOVER_NO_FLUSH 0
#endif
#ifndef REDO_UNCAPTURED
#define REDO_UNCAPTURED 0
#endif
#ifndef CAPTURE_NO_FLUSH
#define CAPTURE_NO_FLUSH 0
#endif
/* Redo writes the newest version only, and never compares instead. */
#ifndef REDO_IN_ORDER
#define REDO_IN_ORDER 0
#endif
#ifndef REDO_COMPARE
#define REDO_COMPARE 0
#endif

/* ---- the journal --------------------------------------------------------- */

#define NOTHING 0    /* never written, or torn */
#define WRITE 1      /* of block AT: DATA */
#define PREIMAGE 2   /* of block AT: DATA */
#define CHECKPOINT 3 /* level_seq AT, captured blocks DATA */

/* A frame is a number, so that it is compared and copied at once. */
#define FRAME(kind, at, data, chain)                                           \
    ((kind) << 15 | (at) << 12 | (data) << 9 | session << 6 | (chain) << 3 |   \
     durable_seq)
#define KIND(f) ((f) >> 15)
#define AT(f) ((f) >> 12 & 7)
#define DATA(f) ((f) >> 9 & 7)
#define SESSION(f) ((f) >> 6 & 7)
#define CHAIN(f) ((f) >> 3 & 7)
#define DURABLE(f) ((f) & 7)

#define BIT(n) (1 << (n))

int cached[FRAMES]; /* what every process of this host reads */
int medium[FRAMES]; /* what is there after a power cut, unless more is */
byte dropped;       /* places that a failed flush left clean, yet not there */

/* ---- the disk ------------------------------------------------------------ */

byte disk[BLOCKS];     /* what is read */
byte survives[BLOCKS]; /* set of what may be there after a power cut */
byte flushing[BLOCKS]; /* the same, once the flush under way has returned */
byte disk_dropped;     /* blocks that a failed flush left clean */

/* ---- the driver's memory ------------------------------------------------- */

#define RUNNING 0
#define SCAN 1
#define REWRITE 2
#define CAPTURE 3
#define FLUSH_CAPTURES 4
#define REDO 5
#define NO_ROOM 6 /* the bounds do not let this run go on */
byte phase;

int batch[2];       /* appends under way, by the parity of their place, or 0 */
byte session;
byte last_seq;      /* next_seq - 1 */
byte durable_seq;
byte complete_seq;  /* what the journal's flush under way covers, or 0 */
bool journal_error; /* its last flush failed, and nothing was rewritten yet */
byte captured[BLOCKS];  /* the PREIMAGE's number, or 0 */
byte on_disk[BLOCKS];   /* newest version that was written */
byte in_flight[BLOCKS]; /* version that a request of take() has, or 0 */
byte second[BLOCKS];    /* TAKE_OVERLAPPING: another; REFUSED_OVER_NEWER: it */
byte level_seq;         /* the disk is flushed up to here */
byte issued_level;      /* the same, by the flush under way */
bool disk_flushing;

/* Places under way are the last two at most. */
#define SECOND_LAST batch[last_seq & 1]
#define LAST batch[1 - (last_seq & 1)]
/* All up to here is complete in the journal. */
#define COMPLETE                                                               \
    (SECOND_LAST -> last_seq - 2 : (LAST -> last_seq - 1 : last_seq))
#define MAY_PLAN                                                               \
    (phase == RUNNING && last_seq < FRAMES && !SECOND_LAST &&                  \
     (APPENDS > 1 || !LAST))

/* ---- what the promises are about ----------------------------------------- */

byte writes;         /* issued by the guest; sets of writes: */
byte acked;          /* the guest was told that it is complete */
byte flushed;        /* and a flush after that completed */
byte lost;           /* recovery found it gone: must stay so */
byte needed[BLOCKS]; /* disk-flush=guest: the disk alone has this or newer */
byte sessions, crashes, checkpoints, failures;
bool killed;         /* the last crash was kill -9 */

/* Not part of the state: each is set before it is used in the same d_step. */
hidden byte i, n, s, g, v, limit, E, ck, vouched, map;
hidden byte found;
hidden byte newest[BLOCKS];

/* newest[] of the records up to @last */
inline find_newest(last)
{
    for (n : 0 .. BLOCKS - 1) {
        newest[n] = 0
    }
    for (s : 1 .. FRAMES) {
        if
        :: s <= last && KIND(cached[s - 1]) == WRITE ->
            newest[AT(cached[s - 1])] = s
        :: else
        fi
    }
}

#define LINKED(place)                                                          \
    (KIND(cached[place]) != NOTHING &&                                         \
     (place == 0 || NO_CHAIN ||                                                \
      CHAIN(cached[place]) == SESSION(cached[place - 1])))

/* Is there a frame of this kind and block, and value, before place @g? */
inline find(kind, block, data)
{
    found = false;
    for (s : 0 .. FRAMES - 1) {
        if
        :: s < g && KIND(cached[s]) == kind && AT(cached[s]) == block &&
           DATA(cached[s]) == data ->
            found = true
        :: else
        fi
    }
}

/*
 * A failing assertion prints its text, and so which promise is broken: these
 * are always 0.
 */
hidden byte exact, journal_first, recorded;

/* The promises that must hold at every moment. */
inline check()
{
    /* what survives every crash: up to place @g */
    g = 0;
    do
    :: g < COMPLETE && cached[g] == medium[g] && LINKED(g) -> g++
    :: else -> break
    od;
    limit = COMPLETE;
    find_newest(limit);
    for (i : 0 .. BLOCKS - 1) {
        for (v : 1 .. WRITES) {
            if
            :: survives[i] & BIT(v) ->
                find(WRITE, i, v);
                /* the journal knows what the disk holds, and held at first */
                assert(journal_first || found);
                find(PREIMAGE, i, 0);
                assert(journal_first || found)
            :: else
            fi
        }
        /* the disk alone has all before the last completed flush */
        assert(recorded || !GUEST || !(survives[i] & (BIT(needed[i]) - 1)));
        /* a level disk is view(latest) */
        if
        :: newest[i] == 0 -> assert(exact || disk[i] == 0)
        :: newest[i] && on_disk[i] == newest[i] && !in_flight[i] ->
            assert(exact || disk[i] == DATA(cached[newest[i] - 1]))
        :: else
        fi
    }
}

/* ---- appends ------------------------------------------------------------- */

inline plan(kind, at, data)
{
    batch[last_seq & 1] =
        FRAME(kind, at, data,
              (last_seq == 0 -> 0 :
                  (LAST -> session : SESSION(cached[last_seq - 1]))));
    last_seq++
}

inline acknowledge(last)
{
    for (s : 1 .. FRAMES) {
        if
        :: s <= last && KIND(cached[s - 1]) == WRITE ->
            acked = acked | BIT(DATA(cached[s - 1]))
        :: else
        fi
    }
}

/* A flush that the guest issues now, and that completes at once if it can. */
inline guest_flush()
{
    n = durable_seq;
    if
    :: FLUSH_NOTHING -> n = COMPLETE
    :: !FLUSH_NOTHING && GUEST && !FLUSH_JOURNAL_ONLY && level_seq < n ->
        n = level_seq
    :: else
    fi;
    for (s : 1 .. FRAMES) {
        if
        :: s <= n && KIND(cached[s - 1]) == WRITE &&
           acked & BIT(DATA(cached[s - 1])) ->
            flushed = flushed | BIT(DATA(cached[s - 1]));
            if
            :: needed[AT(cached[s - 1])] < DATA(cached[s - 1]) ->
                needed[AT(cached[s - 1])] = DATA(cached[s - 1])
            :: else
            fi
        :: else
        fi
    }
}

/* The append to place @place is complete. */
inline commit(place)
{
    cached[place] = batch[place & 1];
    dropped = dropped & ~BIT(place);
    batch[place & 1] = 0;
    if
    :: ACK_UNORDERED && KIND(cached[place]) == WRITE ->
        acked = acked | BIT(DATA(cached[place]))
    :: else -> limit = COMPLETE; acknowledge(limit)
    fi;
    guest_flush()
}

/* ---- flushing the journal ------------------------------------------------ */

inline to_medium(last)
{
    for (s : 0 .. FRAMES - 1) {
        if
        :: s < last && !(dropped & BIT(s)) -> medium[s] = cached[s]
        :: else
        fi
    }
}

/* A failed flush: pages are clean, and not on the medium. */
inline drop()
{
    for (s : 0 .. FRAMES - 1) {
        if
        :: cached[s] != medium[s] -> dropped = dropped | BIT(s)
        :: else
        fi
    }
}

/* ---- write-back ---------------------------------------------------------- */

#define VALUE(seq) BIT(DATA(cached[(seq) - 1]))
#define PREIMAGE_SERVES(b)                                                     \
    (NO_PREIMAGE || captured[b] &&                                             \
     captured[b] <= (PREIMAGE_UNDURABLE -> COMPLETE : durable_seq))

/* From now on the version may be on the disk. */
inline may_survive(b, seq)
{
    survives[b] = survives[b] | VALUE(seq);
    flushing[b] = (disk_flushing -> flushing[b] | VALUE(seq) : 0)
}

inline take(b)
{
    limit = (TAKE_UNDURABLE -> COMPLETE : durable_seq);
    find_newest(limit);
    if
    :: newest[b] > on_disk[b] && !in_flight[b] && PREIMAGE_SERVES(b) ->
        in_flight[b] = newest[b];
        may_survive(b, newest[b]);
        check()
    :: TAKE_OVERLAPPING && in_flight[b] && newest[b] > in_flight[b] &&
       newest[b] > on_disk[b] && !second[b] ->
        second[b] = newest[b];
        may_survive(b, newest[b])
    :: else
    fi
}

inline written(b, seq)
{
    disk[b] = DATA(cached[seq - 1]);
    disk_dropped = disk_dropped & ~BIT(b);
    if
    :: on_disk[b] < seq -> on_disk[b] = seq
    :: else
    fi
}

/* level(): to @n */
inline level()
{
    find_newest(durable_seq);
    n = 0;
    do
    :: n < COMPLETE && (KIND(cached[n]) != WRITE ||
       on_disk[AT(cached[n])] > n ||
       LEVEL_IN_FLIGHT && in_flight[AT(cached[n])] > n ||
       LEVEL_REPLACED && newest[AT(cached[n])] > n + 1) -> n++
    :: else -> break
    od
}

inline issue_disk_flush()
{
    level();
    if
    :: n > level_seq || CHECKPOINT_UNFLUSHED ->
        disk_flushing = true;
        issued_level = n;
        for (i : 0 .. BLOCKS - 1) {
            flushing[i] = (disk_dropped & BIT(i) -> survives[i] : BIT(disk[i]));
            if
            :: in_flight[i] -> flushing[i] = flushing[i] | VALUE(in_flight[i])
            :: else
            fi
        }
    :: else
    fi
}

inline disk_flushed()
{
    for (i : 0 .. BLOCKS - 1) {
        survives[i] = flushing[i];
        flushing[i] = 0
    }
    if
    :: LEVEL_AT_RETURN -> level(); level_seq = n
    :: else -> level_seq = issued_level
    fi;
    disk_flushing = false;
    issued_level = 0;
    guest_flush();
    check()
}

/* All that was written since the last good flush is pending again. */
inline disk_flush_failed()
{
    failures++;
    disk_flushing = false;
    issued_level = 0;
    find_newest(level_seq);
    for (i : 0 .. BLOCKS - 1) {
        flushing[i] = 0;
        if
        :: survives[i] != BIT(disk[i]) -> disk_dropped = disk_dropped | BIT(i)
        :: else
        fi;
        if
        :: !NO_DISK_REWRITE -> on_disk[i] = newest[i]
        :: else
        fi
    }
}

inline captured_map(last)
{
    map = 0;
    for (i : 0 .. BLOCKS - 1) {
        if
        :: captured[i] && captured[i] <= last -> map = map | BIT(i)
        :: else
        fi
    }
}

/* ---- crashes ------------------------------------------------------------- */

/* What the driver knew is gone. */
inline forget()
{
    batch[0] = 0;
    batch[1] = 0;
    last_seq = 0;
    durable_seq = 0;
    complete_seq = 0;
    journal_error = false;
    level_seq = 0;
    issued_level = 0;
    disk_flushing = false;
    for (i : 0 .. BLOCKS - 1) {
        captured[i] = 0;
        on_disk[i] = 0;
        in_flight[i] = 0;
        second[i] = 0;
        flushing[i] = 0
    }
    phase = SCAN
}

/* ---- recovery ------------------------------------------------------------ */

/* tt_scan_run(): history ends at @E. */
inline scan()
{
    E = 0;
    do
    :: E < FRAMES && LINKED(E) -> E++
    :: else -> break
    od;
    vouched = 0;
    for (s : 0 .. FRAMES - 1) {
        if
        :: KIND(cached[s]) != NOTHING ->
            /* else what is not there was durable, and would be damage */
            assert(exact || DURABLE(cached[s]) <= E);
            if
            :: s < E && DURABLE(cached[s]) > vouched ->
                vouched = DURABLE(cached[s])
            :: else
            fi
        :: else
        fi
    }
}

/* Sets of writes: what is in the journal? To @map. */
inline judge()
{
    map = 0;
    for (s : 0 .. FRAMES - 1) {
        if
        :: s < E && KIND(cached[s]) == WRITE ->
            assert(exact || map < BIT(DATA(cached[s]))); /* in order */
            map = map | BIT(DATA(cached[s]))
        :: else
        fi
    }
    assert(exact || !(map & lost)); /* what is gone never returns */
    assert(recorded || !(flushed & ~map));
    assert(recorded || !killed || !(acked & ~map));
    for (v : 1 .. WRITES) {
        if
        :: v <= writes && !(map & BIT(v)) && !(lost & BIT(v)) ->
            assert(exact || map < BIT(v)); /* no hole in history */
            lost = lost | BIT(v)
        :: else
        fi
    }
    acked = acked & ~lost; /* fewer states: nobody asks for these again */
    killed = false
}

/* From the newest CHECKPOINT, or 0: level_seq to @ck, the map to captured[] */
inline find_checkpoint()
{
    ck = 0;
    for (s : 0 .. FRAMES - 1) {
        if
        :: s < E && KIND(cached[s]) == CHECKPOINT ->
            ck = AT(cached[s]);
            for (i : 0 .. BLOCKS - 1) {
                captured[i] = (DATA(cached[s]) & BIT(i) -> 1 : 0)
            }
        :: s < E && KIND(cached[s]) == PREIMAGE ->
            captured[AT(cached[s])] = 1;
            assert(journal_first || DATA(cached[s]) == 0)
        :: else
        fi
    }
}

/* What is level and not overwritten since is on our own disk. */
inline samples()
{
    find_newest(E);
    for (i : 0 .. BLOCKS - 1) {
        if
        :: newest[i] && newest[i] <= ck ->
            assert(exact || disk[i] == DATA(cached[newest[i] - 1]))
        :: else
        fi
    }
    find_newest(ck);
    for (i : 0 .. BLOCKS - 1) {
        on_disk[i] = newest[i]
    }
}

inline open_journal()
{
    scan();
    judge();
    find_checkpoint();
    samples();
    sessions = (SAME_SESSION -> 1 : sessions + 1);
    session = sessions;
    last_seq = E;
    durable_seq = vouched;
    phase = REWRITE
}

inline rewrite_and_flush()
{
    for (s : 0 .. FRAMES - 1) {
        if
        :: s >= durable_seq && s < last_seq && !RECOVER_NO_REWRITE ->
            dropped = dropped & ~BIT(s)
        :: else
        fi
    }
    if
    :: !RECOVER_NO_FLUSH -> to_medium(FRAMES)
    :: else
    fi;
    durable_seq = last_seq;
    phase = CAPTURE
}

inline capture_for_redo()
{
    find_newest(last_seq);
    phase = FLUSH_CAPTURES;
    for (i : 0 .. BLOCKS - 1) {
        if
        :: newest[i] > on_disk[i] && !captured[i] && !REDO_UNCAPTURED ->
            if
            :: last_seq < FRAMES ->
                assert(journal_first || disk[i] == 0); /* it is the original */
                plan(PREIMAGE, i, disk[i]);
                cached[last_seq - 1] = LAST;
                dropped = dropped & ~BIT(last_seq - 1);
                LAST = 0;
                captured[i] = 1
            :: else -> phase = NO_ROOM
            fi
        :: else
        fi
    }
}

/* One block at a time; RUNNING when all is done. */
inline redo()
{
    find_newest(last_seq);
    i = 0;
    do
    :: i < BLOCKS && newest[i] <= on_disk[i] -> i++
    :: else -> break
    od;
    if
    :: i == BLOCKS -> phase = RUNNING
    :: else ->
        n = newest[i];
        if
        :: REDO_IN_ORDER ->
            n = on_disk[i] + 1;
            do
            :: KIND(cached[n - 1]) != WRITE || AT(cached[n - 1]) != i -> n++
            :: else -> break
            od
        :: else
        fi;
        if
        :: REDO_COMPARE && disk[i] == DATA(cached[n - 1]) -> on_disk[i] = n
        :: else -> may_survive(i, n); written(i, n)
        fi;
        check()
    fi
}

/* -------------------------------------------------------------------------- */

/* Blocks are alike: the first that is written is block 0. */
#define CHOOSE_BLOCK                                                           \
    if                                                                         \
    :: b = 0                                                                   \
    :: BLOCKS > 1 && writes > 0 -> b = BLOCKS - 1                              \
    fi

active proctype recorder()
{
    byte b, p;

    d_step {
        sessions = 1;
        session = 1;
        for (i : 0 .. BLOCKS - 1) {
            survives[i] = BIT(0)
        }
        skip
    }

    do
    /* the guest writes */
    :: MAY_PLAN && writes < WRITES ->
        atomic {
            CHOOSE_BLOCK;
            d_step {
                writes++;
                printf("write %d of block %d, record %d\n", writes, b,
                       last_seq + 1);
                plan(WRITE, b, writes);
                if
                :: ACK_AT_PLAN -> acked = acked | BIT(writes)
                :: else
                fi;
                b = 0
            }
        }

    /* a block is captured, before or after its first write's frame */
    :: MAY_PLAN ->
        atomic {
            CHOOSE_BLOCK;
            d_step {
                if
                :: !captured[b] ->
                    printf("capture block %d, record %d\n", b, last_seq + 1);
                    /* it is the original */
                    assert(journal_first || disk[b] == 0);
                    plan(PREIMAGE, b, disk[b]);
                    captured[b] = last_seq
                :: else
                fi;
                b = 0
            }
        }

    :: MAY_PLAN && checkpoints < CHECKPOINTS &&
       (level_seq > 0 || CHECKPOINT_UNFLUSHED) ->
        d_step {
            checkpoints++;
            n = level_seq;
            if
            :: CHECKPOINT_UNFLUSHED -> level()
            :: else
            fi;
            limit = (MAP_AS_OF_LEVEL -> n : last_seq);
            captured_map(limit);
            printf("checkpoint, level_seq %d, record %d\n", n, last_seq + 1);
            plan(CHECKPOINT, n, map)
        }

    :: LAST ->
        d_step { printf("record %d is complete\n", last_seq);
                 commit(last_seq - 1); skip }
    :: SECOND_LAST ->
        d_step { printf("record %d is complete\n", last_seq - 1);
                 commit(last_seq - 2); skip }

    /* the journal's flush */
    :: phase == RUNNING && !complete_seq && COMPLETE > durable_seq &&
       (!journal_error || NO_JOURNAL_REWRITE) ->
        d_step {
            complete_seq = COMPLETE;
            printf("flush the journal up to %d\n", complete_seq);
            if
            :: DURABLE_AT_ISSUE -> durable_seq = complete_seq
            :: else
            fi
        }
    :: complete_seq ->
        d_step {
            to_medium(complete_seq);
            durable_seq = (DURABLE_AT_RETURN -> COMPLETE : complete_seq);
            printf("journal flushed, durable_seq %d\n", durable_seq);
            complete_seq = 0;
            guest_flush();
            check();
            skip
        }
    :: complete_seq && failures < FAILURES ->
        d_step {
            printf("the journal's flush fails\n");
            failures++;
            drop();
            complete_seq = 0;
            journal_error = true
        }
    :: journal_error && !complete_seq ->
        d_step {
            printf("what is not durable is written to the journal again\n");
            for (s : 0 .. FRAMES - 1) {
                if
                :: s >= durable_seq && !NO_JOURNAL_REWRITE ->
                    dropped = dropped & ~BIT(s)
                :: else
                fi
            }
            journal_error = false
        }

    /* write-back */
    :: phase == RUNNING ->
        atomic { CHOOSE_BLOCK; d_step { take(b); b = 0 } }
    :: in_flight[0] || in_flight[BLOCKS - 1] ->
        atomic {
            if
            :: in_flight[0] -> b = 0
            :: BLOCKS > 1 && in_flight[BLOCKS - 1] -> b = BLOCKS - 1
            fi;
            if
            :: p = in_flight[b]
            :: TAKE_OVERLAPPING && second[b] -> p = second[b]
            fi;
            d_step {
                printf("record %d is on the disk\n", p);
                written(b, p);
                in_flight[b] = (p == in_flight[b] -> second[b] : in_flight[b]);
                second[b] = 0;
                check();
                b = 0;
                p = 0
            }
        }
    :: (in_flight[0] || in_flight[BLOCKS - 1]) && failures < FAILURES ->
        atomic {
            if
            :: in_flight[0] -> b = 0
            :: BLOCKS > 1 && in_flight[BLOCKS - 1] -> b = BLOCKS - 1
            fi;
            /* some of it may have been written all the same */
            if
            :: skip
            :: disk[b] = DATA(cached[in_flight[b] - 1])
            fi;
            d_step {
                printf("the disk refuses record %d\n", in_flight[b]);
                failures++;
                if
                :: REFUSED_OVER_NEWER -> second[b] = in_flight[b]
                :: else
                fi;
                in_flight[b] = 0;
                b = 0
            }
        }
    :: REFUSED_OVER_NEWER && second[0] && !in_flight[0] ->
        d_step {
            may_survive(0, second[0]);
            written(0, second[0]);
            second[0] = 0;
            check();
            skip
        }

    /* the disk's flush */
    :: phase == RUNNING && !disk_flushing ->
        d_step { issue_disk_flush();
                 printf("flush the disk, level %d\n", issued_level) }
    :: disk_flushing ->
        d_step { disk_flushed(); printf("disk flushed, %d\n", level_seq) }
    :: disk_flushing && failures < FAILURES ->
        d_step {
            printf("the disk's flush fails\n");
            disk_flush_failed();
            skip
        }

    /* kill -9: what is complete stays; the rest is there, or in part, or not */
    :: phase != SCAN && phase != NO_ROOM && crashes < CRASHES ->
        atomic {
            printf("kill -9\n");
            crashes++;
            killed = true;
            if
            :: !LAST
            :: LAST -> cached[last_seq - 1] = NOTHING
            :: LAST -> cached[last_seq - 1] = LAST
            :: LAST
            fi;
            if
            :: !SECOND_LAST
            :: SECOND_LAST -> cached[last_seq - 2] = NOTHING
            :: SECOND_LAST -> cached[last_seq - 2] = SECOND_LAST
            :: SECOND_LAST
            fi;
            for (b : 0 .. BLOCKS - 1) {
                if
                :: skip
                :: in_flight[b] -> disk[b] = DATA(cached[in_flight[b] - 1])
                fi
            }
            d_step { b = 0; forget() }
        }

    /* a power cut keeps any part of what no flush covered */
    :: phase != SCAN && phase != NO_ROOM && crashes < CRASHES ->
        atomic {
            printf("power cut\n");
            crashes++;
            killed = false;
            for (b : 0 .. BLOCKS - 1) {
                /* first, as forget() and the journal's part lose versions */
                p = 0;
                do
                :: survives[b] & BIT(p) -> disk[b] = p; break
                :: survives[b] >> (p + 1) -> p++
                od;
                survives[b] = BIT(disk[b])
            }
            p = 0;
            if
            :: LAST ->
                if
                :: cached[last_seq - 1] = LAST
                :: skip
                fi
            :: else
            fi;
            if
            :: SECOND_LAST ->
                if
                :: cached[last_seq - 2] = SECOND_LAST
                :: skip
                fi
            :: else
            fi;
            for (b : 0 .. FRAMES - 1) {
                if
                :: cached[b] == medium[b] &&
                   !(LAST && b == last_seq - 1) &&
                   !(SECOND_LAST && b == last_seq - 2)
                :: else ->
                    if
                    :: cached[b] = cached[b]
                    :: cached[b] = medium[b]
                    :: cached[b] = NOTHING
                    fi
                fi;
                medium[b] = cached[b]
            }
            d_step { b = 0; dropped = 0; disk_dropped = 0; forget() }
        }

    /* recovery */
    :: phase == SCAN ->
        d_step {
            open_journal();
            printf("scan: end %d, vouched %d, checkpoint %d\n", E, vouched, ck)
        }
    :: phase == REWRITE ->
        d_step { printf("rewrite\n"); rewrite_and_flush() }
    :: phase == REWRITE && failures < FAILURES ->
        d_step {
            printf("the flush after the rewriting fails: opened again\n");
            failures++;
            drop();
            forget()
        }
    :: phase == CAPTURE -> 
        d_step { printf("capture\n"); capture_for_redo(); skip }
    :: phase == FLUSH_CAPTURES ->
        d_step {
            if
            :: !CAPTURE_NO_FLUSH -> to_medium(last_seq)
            :: else
            fi;
            durable_seq = last_seq;
            phase = REDO
        }
    :: phase == REDO -> d_step { printf("redo\n"); redo(); skip }
    :: phase == NO_ROOM -> break
    od
}
