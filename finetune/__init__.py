"""Stage 2: from an encoder to a tumour classifier, and the comparison that says which encoder is the better start.

Read in this order: ``config`` (every setting), ``arms`` (what is compared), ``protocol`` (which images train and
which test), ``features`` and ``probe`` (linear probe), ``classifier`` and ``training`` (fine-tuning), ``trials``
(what is kept), ``compare`` (all of it), ``results`` and ``report`` (statistics and the page).
"""
