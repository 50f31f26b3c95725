"""Personalization: does a compact model that goes on learning from its user's few texts get better, and at what price?

A gain is easily claimed and often empty: two numbers added to the logits, or a constant answer, may explain most of
it. So every arm stands beside what needs no learning from texts, and beside what the user loses by it:

    users.py      people whose texts the global model has never seen, cut into texts to learn from and held-out ones
    raters.py     made people, whose taste is known: what a method must find, and what it must not
    texts.py      texts as the global model reads them, so that what stays frozen is computed once
    arms.py       what may change on the device: nothing, two numbers, the last layer, ... everything
    meta.py       a start that was trained to be personalized (first-order, robust in its outer loop)
    protocol.py   epochs chosen on other users, floors, and what a user's held-out texts say
    loyalty.py    does the personal model still answer as the global one?
    leakage.py    what the update tells about the texts it was made from
    robust.py     the project's attacks on the personal artefact
    costs.py      head.c: the step of the last layer as C99, counted on emulated cores
    private.py    the same step with clipped and noised gradients, and what that promises
    summary.py    over users: means with intervals, low percentiles, who was hurt
    results.py    counts on disk
    study.py      all of it, resumable
    board.py      tables for people
"""
