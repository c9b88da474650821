"""Judges a run's health without tumour labels: figures, a one-sentence verdict, a page, TensorBoard.

``measures`` and ``label_agreement`` are pure functions on features; ``panel`` chooses the slices to measure;
``run_verdict`` turns their history into one of a few states; ``monitor`` does all of it during a run;
``run_page`` draws it.
"""
