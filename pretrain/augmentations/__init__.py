"""What is done to a slice to make a view of it: one table, and its parts as pure functions on tensors.

``table`` says what there is, how strong and how often, and what it stands for; ``geometry`` moves the picture,
``scanner`` does what another scan would, ``screenshot`` what another program would. The layer that draws the random
numbers and applies all of them is :class:`mri_transfer.pretrain.augmentations.views.Views`.
"""
