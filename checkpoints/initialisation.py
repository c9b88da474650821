"""What training starts from: the single parser of `--init` and of a comparison's arms, for every command.

random      weights drawn from the seed
imagenet    the backbone's ImageNet weights: from its package, a download, or --imagenet-weights FILE
NAME        an encoder that comes with this program, see :data:`PUBLISHED`
FOLDER      an encoder, or a run that holds one
FILE        weights of the backbone (.h5, or .pth for efficientnet_lite0), under whatever name; in a comparison also a
            custom network (.keras, see own_network.py)
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_transfer.checkpoints import DEFAULT_BACKBONE, network_of
from mri_transfer.checkpoints.own_network import architecture_of, load_network
from mri_transfer.errors import UserError
from mri_transfer.machine import device
from mri_transfer.options import did_you_mean
from mri_transfer.storage.files import sha256

if TYPE_CHECKING:
    import keras

RANDOM, IMAGENET, SCALED = "random", "imagenet", "scaled"
WORDS = {
    RANDOM: "random weights",
    IMAGENET: "ImageNet",
    SCALED: "random weights with the mean and variance of a trained encoder's layers",
    "weights": "weights from a file",
    "network": "your own network",
}
BUILT_IN = (RANDOM, IMAGENET)
# Encoders that come with this program (docs/encoders.md): the name that `--init` takes, and the folder in the package.
PUBLISHED: dict[str, Path] = {
    name: folder
    for name in ("mri", "imagenet-mri")
    if (folder := Path(__file__).parent / "published" / name).is_dir()
}
NETWORK, OWN_WEIGHTS, ENCODER = "network", "weights", "encoder"
FILES = {NETWORK: (".keras",), OWN_WEIGHTS: (".h5", ".hdf5", ".pth")}  # by file suffix

# For `--help` and messages.
FORMS = (
    ", ".join((*BUILT_IN, *PUBLISHED)) + ", or the folder of a run or an encoder, or a file of weights (.h5)"
)
BACKBONE = (
    f"network for random and ImageNet weights: {DEFAULT_BACKBONE}, or any of keras.applications by its snake_case "
    "name; NAME/16 is its lower part, up to a feature map of output stride 16 (or 8, 4), of an encoder as well "
    f"(default: that of the given encoder, else {DEFAULT_BACKBONE})"
)
WEIGHTS = "file with the backbone's ImageNet weights, if they can't be downloaded"


def start(text: str) -> str:
    """The name of a start in its proper case, unless a folder has that name; anything else unchanged."""
    return text.lower() if text.lower() in (*BUILT_IN, *PUBLISHED) and not Path(text).exists() else text


def folder_of(origin: str) -> Path | None:
    """Path of the encoder it starts from; None if it starts from none."""
    return None if origin in BUILT_IN else PUBLISHED.get(origin) or Path(origin)


def kind_of(origin: str) -> str:
    """ "random", "imagenet", "encoder", or by the ending of a file's name "network" or "weights"."""
    if origin in BUILT_IN:
        return origin
    kinds = (kind for kind, endings in FILES.items() if origin.lower().endswith(endings))
    return ENCODER if Path(origin).is_dir() else next(kinds, ENCODER)


def check(origin: str, option: str = "--init ") -> None:
    """Check that the start exists, without importing Keras.

    Args:
        origin: as the user wrote it.
        option: what precedes it on the command line, such as "--init " or "--arm mri=".

    Raises:
        UserError: it doesn't exist; the message suggests a close name.
    """
    folder = folder_of(origin)
    if origin in PUBLISHED and any(
        (Path(origin) / card).is_file() for card in ("encoder.json", "encoder/encoder.json")
    ):
        raise UserError(
            f"{option}{origin}: is an encoder that comes with this program, and a folder with another one lies here; "
            f"write {option}./{origin} for the folder, or start elsewhere"
        )
    if folder is None or folder.is_dir() or (kind_of(origin) in FILES and folder.is_file()):
        return
    if folder.exists():
        raise UserError(
            f"{option}{origin}: is a file; a start is {FORMS} (a file of ImageNet weights goes with {IMAGENET}, by "
            "--imagenet-weights)"
        )
    names = [*BUILT_IN, *PUBLISHED]
    with contextlib.suppress(OSError):  # the parent is missing or can't be listed
        names += [str(sibling) for sibling in folder.parent.iterdir() if sibling.is_dir()]
    hint = did_you_mean(str(folder), names).replace("did you mean ", f"did you mean {option}")
    noun = "file" if kind_of(origin) in FILES else "folder"
    raise UserError(f"{option}{origin}: no such {noun}; a start is {FORMS}{hint}")


def check_backbone_of(origin: str, backbone: str, option: str = "--init ") -> None:
    """Check that a weights file can belong to this network: only the default network has torch weights.

    Raises:
        UserError: it can't; usually --backbone was forgotten.
    """
    if kind_of(origin) != OWN_WEIGHTS:
        return
    torch, default = origin.lower().endswith(".pth"), network_of(backbone) == DEFAULT_BACKBONE
    if torch and not default:
        raise UserError(
            f"{option}{origin}: torch weights are read for {DEFAULT_BACKBONE} only, not for {backbone}"
        )
    if default and not torch:
        raise UserError(
            f"{option}{origin}: name the network of these weights with --backbone; those of {backbone} are .pth files"
        )


def card_of(origin: str, option: str = "--init ") -> dict[str, Any]:
    """The card of the encoder it starts from; empty if it starts from none.

    A file has no card, only "file" (its name) and "weights_sha256"; a network also has "backbone", a name for its
    architecture.

    Raises:
        UserError: there is no such start, or its card is damaged.
    """
    check(origin, option)
    if (folder := folder_of(origin)) is None:
        return {}
    if (kind := kind_of(origin)) in FILES:
        card = {"file": folder.name, "weights_sha256": sha256(folder)}
        try:
            return card | ({"backbone": architecture_of(folder)} if kind == NETWORK else {})
        except UserError as error:
            raise UserError(f"{option}{error}") from None
    device.prepare()
    from mri_transfer.checkpoints.encoders import read_card

    try:
        return read_card(folder)
    except UserError as error:
        raise UserError(f"{option}{error}") from None


@dataclasses.dataclass(frozen=True)
class Initialisation:
    """A start, as a small value any process can load.

    Attributes:
        origin: "random", "imagenet", a published name, the folder of an encoder or of a run that holds one, or a file.
        backbone: the network's name.
        seed: for its random parts.
        scaled: whether to take only the scale of these weights, layer by layer; see `rescaling.py`.
        card: the encoder's, as of when the start was read; empty if there is none.
    """

    origin: str
    backbone: str
    seed: int = 0
    scaled: bool = False
    card: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def read(
        cls, origin: str, backbone: str | None = None, *, seed: int = 0, option: str = "--init "
    ) -> Initialisation:
        """The start that a user names.

        Args:
            origin, option: as of :func:`check`.
            backbone: as given; None means the encoder's, or the default.
            seed: for random weights.

        Raises:
            UserError: no such start or backbone, the encoder has a different backbone, or it is a custom network, which
                an encoder folder can't hold.
        """
        if kind_of(origin) == NETWORK:
            raise UserError(
                f"{option}{origin}: a network of your own can be compared (compare --arm NAME={origin}), not trained "
                "further here; start from weights of a known backbone"
            )
        card = card_of(origin, option)
        device.prepare()
        from mri_transfer.checkpoints.backbones import check_backbone

        own_backbone = card.get("backbone", DEFAULT_BACKBONE if backbone is None else backbone)
        check_backbone_of(origin, own_backbone, option)
        wanted = check_backbone(own_backbone if backbone is None else backbone)
        if own_backbone not in (wanted, network_of(wanted)):
            raise UserError(
                f"{option}{origin}: is an encoder of {own_backbone}, not of {backbone}; leave --backbone out"
            )
        return cls(origin, wanted, seed, card=card)

    @property
    def kind(self) -> str:
        """ "scaled", or as of :func:`kind_of`."""
        return SCALED if self.scaled else kind_of(self.origin)

    @property
    def identity(self) -> str:
        """Identifies the weights: the SHA-256 of an encoder's, wherever it is stored, else "random" or "imagenet"."""
        return self.card.get("weights_sha256", self.origin)

    def digest(self, model: keras.Model) -> str:
        """Identifies a model loaded from this start: its weights and, for a custom network, also its layers.

        The moving statistics of a scaled start follow from its weights, but for rounding, which differs with threads.
        """
        digest = weights_digest(model, trained_only=self.scaled)
        network = self.backbone if self.kind == NETWORK else ""
        return hashlib.sha256(f"{network}/{digest}".encode()).hexdigest() if network else digest

    def load(self, size: int, imagenet_weights: Path | None = None) -> tuple[keras.Model, dict[str, Any]]:
        """The encoder and its origin.

        Args:
            size: height and width of its input, pixels.
            imagenet_weights: file with the backbone's ImageNet weights; None takes the package or downloads.

        Returns:
            The model and a dictionary for provenance, with "init", "backbone" and: "seed" (random), "source" and
            "weights_sha256" (imagenet), or "path", "weights_sha256" and the encoder's own "provenance", which holds its
            own start in turn, so the whole chain is recorded; for a file, "source" and "weights_sha256". For a scaled
            start: {"init": "scaled", "backbone", "seed", "scale_of": the source of the scale}.

        Raises:
            UserError: it is gone or damaged, or its backbone has changed.
        """
        device.prepare()
        from mri_transfer.checkpoints.backbones import build_encoder, truncated
        from mri_transfer.checkpoints.encoders import read_encoder
        from mri_transfer.checkpoints.imagenet import load_imagenet
        from mri_transfer.checkpoints.rescaling import rescale_at_random

        description: dict[str, Any] = {"init": self.origin, "backbone": self.backbone}
        kind, folder, network = kind_of(self.origin), folder_of(self.origin), network_of(self.backbone)
        if folder is not None and kind == NETWORK:
            model = load_network(folder, size)
            description |= {"init": kind, "source": folder.name, "weights_sha256": sha256(folder)}
        elif folder is not None and kind == OWN_WEIGHTS:
            model = build_encoder(network, size)
            description |= {"init": kind, **load_imagenet(model, network, folder)}
        elif folder is not None:
            model, card = read_encoder(folder, size)
            if card["backbone"] not in (self.backbone, network):
                raise UserError(f"{folder}: holds an encoder of {card['backbone']}, not of {self.backbone}")
            network = card["backbone"]
            facts = {key: card[key] for key in ("weights_sha256", "provenance")}
            description |= {"init": "encoder", "path": self.origin} | facts
        else:
            model = build_encoder(network, size, self.seed)
            description |= (
                {"seed": self.seed}
                if self.origin == RANDOM
                else load_imagenet(model, network, imagenet_weights)
            )
        if network != self.backbone:
            model = truncated(model, self.backbone)
        if self.scaled:
            rescale_at_random(model, self.seed)
            description = {
                "init": SCALED,
                "backbone": self.backbone,
                "seed": self.seed,
                "scale_of": description,
            }
        return model, description


def weights_digest(model: keras.Model, *, trained_only: bool = False) -> str:
    """SHA-256 over every weight of a model: the identity of an encoder, wherever it was loaded from.

    Args:
        trained_only: without weights that training doesn't change by gradients, such as moving statistics.
    """
    import keras

    digest = hashlib.sha256()
    for variable in model.trainable_weights if trained_only else model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def describe_start(description: Mapping[str, Any]) -> str:
    """The provenance from :meth:`Initialisation.load` in one line, oldest first.

    For example "ImageNet → simclr (9000 slices of 85 subjects, 480 min)".
    """
    if description.get("init") in FILES:
        return f"{WORDS[description['init']]} ({description.get('source', 'unknown')})"
    if description.get("init") != "encoder":
        return WORDS.get(str(description.get("init")), "unknown start")
    provenance = description.get("provenance") or {}
    data = provenance.get("data") or {}
    facts = []
    if data.get("slices") is not None:
        of = f" of {data['subjects']} subjects" if data.get("subjects") is not None else ""
        facts.append(f"{data['slices']} slices{of}")
    if provenance.get("seconds") is not None:
        facts.append(f"{provenance['seconds'] / 60:.0f} min")
    method = str(provenance.get("method") or "unknown method") + (f" ({', '.join(facts)})" if facts else "")
    return f"{describe_start(provenance.get('start') or {})} → {method}"
