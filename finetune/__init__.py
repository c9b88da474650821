"""Stage two: from an encoder to a tumour classifier, and the comparison that decides which encoder is the better start.

Read in this order: ``config`` (every setting), ``data`` (training and test images), ``heads`` (probe, nearest
neighbours, fine-tuned classifier), ``arms`` (the starts compared), ``compare`` (the command), ``comparison`` (trials,
statistics, verdict), ``planning`` (plans made before looking), ``report`` (the page), ``prediction`` and ``export``
(using a classifier).
"""
