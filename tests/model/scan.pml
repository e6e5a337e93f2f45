/*
 * The journal's end: torn or damaged, stale or history?
 *
 * A writer appends frames and flushes; kill -9, power cuts and one rotten
 * durable sector come at any moment; the scan of journal/scan.c then decides
 * what is history, and a new session goes on behind it.  Names are those of
 * journal/scan.c and docs/journal-format.md.
 *
 * A frame has one place and two sectors: a header (valid, or nothing) and a
 * payload.  Payloads of different frames may be the same bytes.  The chain
 * value is the session of the frame before: weaker than the code's, which is a
 * checksum of that frame's header.  A segment has SEGMENT places.
 *
 * Who is acknowledged what, and the disk, are in core.pml.  That a frame has
 * two places where it may follow, one append that failed, and a damaged place
 * that can be read again, are not modelled.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* ---- bounds -------------------------------------------------------------- */

#ifndef FRAMES
#define FRAMES 4
#endif
#ifndef SEGMENT
#define SEGMENT 2
#endif
/* frames appended in all, SESSIONs too: below 8 */
#ifndef APPENDED
#define APPENDED 6
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
/* different payloads: 1 or 2 */
#ifndef VALUES
#define VALUES 2
#endif
#ifndef ROT
#define ROT 0
#endif
/* 1: scan as a writer does, from where tt_scan_start() says; 0: all */
#ifndef WRITER
#define WRITER 1
#endif

/* ---- rules that can be left out ------------------------------------------ */

/* Frames link. */
#ifndef NO_CHAIN
#define NO_CHAIN 0
#endif
/* A session number is above every one in any valid header, stale ones too. */
#ifndef SAME_SESSION
#define SAME_SESSION 0
#endif
#ifndef SESSION_ABOVE_ACCEPTED
#define SESSION_ABOVE_ACCEPTED 0
#endif
/* SESSION is alone and flushed before any other frame. */
#ifndef NO_SESSION
#define NO_SESSION 0
#endif
#ifndef NO_SESSION_FLUSH
#define NO_SESSION_FLUSH 0
#endif
/* What was accepted is flushed before it counts as durable. */
#ifndef RECOVER_NO_FLUSH
#define RECOVER_NO_FLUSH 0
#endif
/* durable_seq is what a flush that returned has covered. */
#ifndef DURABLE_AT_ISSUE
#define DURABLE_AT_ISSUE 0
#endif
/* Each frame has a sequence number. */
#ifndef NO_SEQ
#define NO_SEQ 0
#endif
/* What is above the durable end must be whole. */
#ifndef ACCEPT_UNWHOLE
#define ACCEPT_UNWHOLE 0
#endif
/*
 * What is missing although a later header says that it was durable is damage.
 * A valid header says so also if its frame is not whole.
 */
#ifndef NO_DAMAGE
#define NO_DAMAGE 0
#endif
#ifndef DURABLE_BY_WHOLE
#define DURABLE_BY_WHOLE 0
#endif
/*
 * Stale frames are passed over: any valid header tells of a later session, also
 * one that is not whole.  So is what would leave a hole above D.
 */
#ifndef NO_STALE
#define NO_STALE 0
#endif
#ifndef STALE_BY_WHOLE
#define STALE_BY_WHOLE 0
#endif
#ifndef RESUME_ABOVE
#define RESUME_ABOVE 0
#endif
/* The scan begins in the segment with the newest header's durable_seq. */
#ifndef START_AT_NEWEST
#define START_AT_NEWEST 0
#endif

/* ---- the journal --------------------------------------------------------- */

#define BIT(n) (1 << (n))

/* A header is a number, and 0 is none: sequence numbers begin with 1. */
#define DURABLE(h) ((h) & 15)
#define FIRST(h) ((h) >> 4 & 15)
#define SESSION_FIRST(h) ((h) >> 8 & 15)
#define SESSION(h) ((h) >> 12 & 7)
#define CHAIN(h) ((h) >> 15 & 7)
#define SUM(h) ((h) >> 18 & 3) /* of the payload, 0: there is none */
#define COUNT(h) ((h) >> 20 & 1)
#define ID(h) ((h) >> 21) /* nobody reads this but the assertions */
#define LAST(h) (FIRST(h) + COUNT(h) - 1)

#define DESTROYED 3 /* a payload */

int cached[FRAMES], medium[FRAMES];
byte payload[FRAMES], medium_payload[FRAMES];

#define WHOLE(p)                                                               \
    (cached[p] && (!SUM(cached[p]) || payload[p] == SUM(cached[p])))

/* ---- the writer ---------------------------------------------------------- */

#define SCAN 0
#define REWRITE 1
#define OPEN 2
#define SERVE 3
#define RUNNING 4
#define NO_ROOM 5
byte phase;

byte session, session_first_seq, chain;
byte next_place, next_seq, durable_seq;

/* ---- what is true -------------------------------------------------------- */

byte history; /* set of the places of frames that the writer builds on */
byte durable; /* and of those that survive every crash */
short dead;   /* set of frames, by id, that a session did without */
byte rotten;  /* place + 1 of what rotted and was not written anew */
byte rotten_seq;
byte appended, crashes, rotted;

/* An assertion that fails prints which promise is broken; always 0. */
hidden byte exact, recorded, damage_is_found;

/* ---- the scan ------------------------------------------------------------ */

hidden byte i, j, E, Eq, from, newest, vouched, max_session, accepted, D;
hidden byte resume, damage, damaged_end, trusted, stale;
hidden int last;

inline newest_segment()
{
    newest = 0;
    vouched = 0;
    for (i : 0 .. FRAMES - 1) {
        if
        :: i % SEGMENT == 0 && cached[i] ->
            newest = i;
            vouched = DURABLE(cached[i])
        :: else
        fi
    }
}

/* tt_scan_start(): to @from */
inline scan_start()
{
    from = 0;
    for (i : 1 .. FRAMES - 1) {
        if
        :: WRITER && i % SEGMENT == 0 && i <= newest && cached[i] &&
           (FIRST(cached[i]) <= vouched || START_AT_NEWEST && i == newest) ->
            from = i
        :: else
        fi
    }
}

#define LINKS(p)                                                               \
    (cached[p] && FIRST(cached[p]) == Eq + 1 &&                                \
     (NO_CHAIN || CHAIN(cached[p]) == (last -> SESSION(last) : 0)))

inline accept()
{
    accepted = accepted | BIT(E);
    last = cached[E];
    Eq = LAST(last);
    trusted = false;
    damaged_end = false;
    if
    :: SESSION(last) > max_session -> max_session = SESSION(last)
    :: else
    fi;
    E++
}

#define LATER(a, b)                                                            \
    (SESSION(a) > SESSION(b) && SESSION_FIRST(a) <= FIRST(b))

/* Did a later session begin at or before what is at @p? To @stale */
inline is_stale(p)
{
    stale = false;
    for (j : 0 .. FRAMES - 1) {
        if
        :: j >= E && cached[j] && (WHOLE(j) || !STALE_BY_WHOLE) &&
           LATER(cached[j], cached[p]) ->
            stale = true
        :: else
        fi
    }
    stale = stale && !NO_STALE
}

/* Of the valid headers from @E on: the largest durable_seq, to @D */
inline zone_collect()
{
    D = vouched;
    for (i : 0 .. FRAMES - 1) {
        if
        :: i >= E && cached[i] ->
            if
            :: SESSION(cached[i]) > max_session && !SESSION_ABOVE_ACCEPTED ->
                max_session = SESSION(cached[i])
            :: else
            fi;
            if
            :: (WHOLE(i) || !DURABLE_BY_WHOLE) && DURABLE(cached[i]) > D ->
                D = DURABLE(cached[i])
            :: else
            fi
        :: else
        fi
    }
}

/* The first whole frame that is not stale and leaves no hole; or FRAMES */
inline zone_resume()
{
    resume = FRAMES;
    for (i : 0 .. FRAMES - 1) {
        if
        :: resume == FRAMES && i >= E && WHOLE(i) && FIRST(cached[i]) > Eq &&
           (FIRST(cached[i]) <= D + 1 || RESUME_ABOVE) ->
            is_stale(i);
            if
            :: !stale -> resume = i
            :: else
            fi
        :: else
        fi
    }
}

/* The first place behind all that is not empty, at a segment's start */
inline behind_all()
{
    j = 0;
    for (i : 0 .. FRAMES - 1) {
        if
        :: cached[i] || payload[i] -> j = i + 1
        :: else
        fi
    }
    if
    :: j < E -> j = E
    :: else
    fi;
    E = (j + SEGMENT - 1) / SEGMENT * SEGMENT
}

/* @resume is FRAMES + 1 once the scan is at its end. */
inline judge_break()
{
    zone_collect();
    resume = FRAMES + 1;
    if
    :: D <= Eq || NO_DAMAGE /* a torn end, or none */
    :: else ->
        vouched = D;
        if
        :: E < FRAMES && LINKS(E) && LAST(cached[E]) <= D ->
            damage = true;
            accept();
            resume = FRAMES
        :: else ->
            zone_resume();
            if
            :: resume < FRAMES ->
                damage = true;
                trusted = true;
                E = resume
            :: else ->
                damage = true;
                damaged_end = true;
                Eq = D;
                behind_all();
                resume = FRAMES + 1
            fi
        fi
    fi
}

inline scan()
{
    newest_segment();
    scan_start();
    E = from;
    Eq = 0;
    last = 0;
    accepted = 0;
    max_session = 0;
    damage = false;
    damaged_end = false;
    trusted = from > 0;
    resume = 0;
    do
    :: E < FRAMES && trusted -> Eq = FIRST(cached[E]) - 1; accept()
    :: E < FRAMES && !trusted && LINKS(E) &&
       (WHOLE(E) || LAST(cached[E]) <= vouched || ACCEPT_UNWHOLE) ->
        accept()
    :: else ->
        if
        :: resume == FRAMES + 1 -> break
        :: else -> judge_break()
        fi
    od
}

/* What must hold of every scan */
inline judge()
{
    assert(exact || rotten || !damage); /* no false alarm */
    /* is there a frame that tells of the rotten one? to @j */
    j = false;
    for (i : 0 .. FRAMES - 1) {
        if
        :: rotten && i >= rotten && WHOLE(i) &&
           DURABLE(cached[i]) >= rotten_seq ->
            j = true
        :: else
        fi
    }
    assert(damage_is_found || !j || damage || from >= rotten ||
           accepted & BIT(rotten - 1));
    for (i : 0 .. FRAMES - 1) {
        /* what is accepted was never done without, */
        assert(exact || !(accepted & BIT(i)) || !(dead & BIT(ID(cached[i]))));
        /* and whole, if it is not known to be damaged, */
        assert(exact || !(accepted & BIT(i)) || WHOLE(i) || i == rotten - 1);
        /* and all that is durable is accepted, but for what is damaged: a
           rotten one that nobody tells of ends history */
        assert(recorded || !(durable & BIT(i)) || i < from || i == rotten - 1 ||
               accepted & BIT(i) || rotten && !j && i >= rotten)
    }
}

inline open_journal()
{
    scan();
    judge();
    chain = (last -> SESSION(last) : 0);
    session = (SAME_SESSION -> 1 : max_session + 1);
    next_place = E;
    next_seq = Eq + 1;
    session_first_seq = next_seq;
    /* what is before the scan's beginning is history as well */
    history = accepted | history & (BIT(from) - 1);
    durable = durable & history;
    phase = REWRITE
}

/* ---- the writer's steps -------------------------------------------------- */

inline append(sum, count)
{
    appended++;
    cached[next_place] =
        appended << 21 | count << 20 | sum << 18 | chain << 15 |
        session << 12 | session_first_seq << 8 | next_seq << 4 | durable_seq;
    if
    :: sum -> payload[next_place] = sum
    :: else
    fi;
    if
    :: rotten == next_place + 1 -> rotten = 0; rotten_seq = 0
    :: else
    fi;
    history = history | BIT(next_place);
    durable = durable & ~BIT(next_place);
    chain = session;
    next_seq = next_seq + count;
    next_place++
}

/* A flush: issued and returned at once, which core.pml tells apart. */
inline flush()
{
    for (i : 0 .. FRAMES - 1) {
        medium[i] = cached[i];
        medium_payload[i] = payload[i]
    }
    durable = durable | history;
    durable_seq = next_seq - 1
}

/* The guest is served: what the new session does not build on is gone. */
inline serve()
{
    dead = BIT(appended + 1) - 2;
    for (i : 0 .. FRAMES - 1) {
        if
        :: history & BIT(i) -> dead = dead & ~BIT(ID(cached[i]))
        :: else
        fi
    }
    phase = RUNNING
}

inline forget()
{
    session = 0;
    session_first_seq = 0;
    chain = 0;
    next_place = 0;
    next_seq = 0;
    durable_seq = 0;
    phase = SCAN
}

#define ROOM (next_place < FRAMES && appended < APPENDED)

active proctype writer()
{
    byte p, sum, count;

    do
    :: phase == RUNNING && ROOM ->
        atomic {
            if
            :: sum = 1
            :: VALUES > 1 -> sum = 2
            fi;
            if
            :: count = 1
            :: NO_SEQ -> count = 0
            fi;
            d_step {
                printf("frame %d at %d, records %d + %d, payload %d\n",
                       appended + 1, next_place, next_seq, count, sum);
                append(sum, count);
                sum = 0;
                count = 0
            }
        }
    :: phase == RUNNING && (durable_seq < next_seq - 1 || NO_SEQ) ->
        d_step { flush(); printf("flushed, durable_seq %d\n", durable_seq) }
    :: phase == RUNNING && DURABLE_AT_ISSUE -> durable_seq = next_seq - 1

    /* a durable sector rots */
    :: phase == RUNNING && rotted < ROT && durable ->
        atomic {
            p = 0;
            do
            :: durable & BIT(p) -> break
            :: durable >> (p + 1) -> p++
            od;
            rotted++;
            rotten = p + 1;
            rotten_seq = LAST(cached[p]);
            if
            :: cached[p] = 0; medium[p] = 0; printf("header %d rots\n", p)
            :: SUM(cached[p]) ->
                payload[p] = DESTROYED;
                medium_payload[p] = DESTROYED;
                printf("payload %d rots\n", p)
            fi;
            p = 0
        }

    /* kill -9: the cache stays; the append under way may be there in part */
    :: crashes < CRASHES && phase != SCAN && phase != NO_ROOM ->
        atomic {
            printf("kill -9\n");
            crashes++;
            if
            :: skip
            :: phase == RUNNING && next_place > 0 &&
               !(durable & BIT(next_place - 1)) ->
                if
                :: SUM(cached[next_place - 1]) ->
                    payload[next_place - 1] = DESTROYED
                :: cached[next_place - 1] = 0
                fi
            fi;
            d_step { forget(); skip }
        }

    /* a power cut keeps any of the sectors that no flush covered */
    :: crashes < CRASHES && phase != SCAN && phase != NO_ROOM ->
        atomic {
            printf("power cut\n");
            crashes++;
            for (p : 0 .. FRAMES - 1) {
                if
                :: skip
                :: cached[p] != medium[p] -> cached[p] = medium[p]
                :: cached[p] != medium[p] -> cached[p] = 0
                fi;
                if
                :: skip
                :: payload[p] != medium_payload[p] ->
                    payload[p] = medium_payload[p]
                :: payload[p] != medium_payload[p] -> payload[p] = DESTROYED
                fi;
                medium[p] = cached[p];
                medium_payload[p] = payload[p]
            }
            p = 0;
            d_step { forget(); skip }
        }

    /* recovery */
    :: phase == SCAN ->
        d_step {
            open_journal();
            printf("scan from %d: end %d, next %d, damage %d, vouched %d\n",
                   from, next_place, next_seq, damage, vouched)
        }
    :: phase == REWRITE ->
        d_step {
            durable_seq = next_seq - 1;
            if
            :: !RECOVER_NO_FLUSH -> flush()
            :: else
            fi;
            phase = (NO_SESSION -> SERVE : OPEN)
        }
    :: phase == OPEN ->
        d_step {
            if
            :: ROOM ->
                printf("session %d at %d\n", session, next_place);
                append(0, 1);
                phase = SERVE
            :: else -> phase = NO_ROOM
            fi;
            skip
        }
    :: phase == SERVE ->
        d_step {
            if
            :: !NO_SESSION && !NO_SESSION_FLUSH -> flush()
            :: else
            fi;
            serve()
        }
    :: phase == NO_ROOM -> break
    od
}
