"""Pretraining on several devices of one machine, or in several processes on one or many machines.

One process leads: it runs the loop as if it were alone, and is the only one that writes. Whatever all must do together
(make the method, take these numbers, do a step) it tells the others just before it does it itself, so that decisions
by the clock, by memory or by a monitor are taken once. The others follow, each with its own rows of every batch.

    place.py      which of how many processes this is
    channel.py    what they say to one another, and how one learns that another is gone
    greeting.py   how they find one another, and whether they agree
    devices.py    who holds what on JAX: arrays on all devices, rows of a batch on one each
    trainer.py    a trainer that does it together with others; following one
    mirrored.py   several devices of one process on TensorFlow, which has nobody to tell
    watched.py    what monitors look at meanwhile
    team.py       all of it put together for a run
"""
