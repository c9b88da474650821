"""Stage two: from an encoder to a tumour classifier, and the comparison that says which encoder is the better start.

Read in this order: ``config`` (every setting), ``data`` (which images train and which test), ``heads`` (probe,
nearest neighbours, fine-tuned classifier), ``arms`` (what is compared), ``compare`` (the command),
``comparison`` (trials, statistics, verdict), ``planning`` (what was written down before the look), ``report``
(the page), ``prediction`` and ``export`` (a classifier in use).
"""
