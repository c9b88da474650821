"""How a slice becomes a view: one table, and its augmentations as pure functions on tensors.

``table`` lists each augmentation, its strength, frequency and purpose; ``geometry`` moves the picture, ``scanner``
imitates another scan, ``screenshot`` another program. The layer that draws the random numbers and applies them is
:class:`mri_transfer.pretrain.augmentations.views.Views`.
"""
