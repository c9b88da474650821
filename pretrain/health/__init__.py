"""Whether a run is healthy, without tumour labels: figures, a verdict in one sentence, a page, TensorBoard.

``measures`` and ``label_agreement`` are pure functions on features; ``panel`` chooses the slices they are taken on;
``run_verdict`` turns their history into one of a few states; ``monitor`` does all of it while a run goes on; ``page``
draws it.
"""
