"""Training recipes: frozen dataclasses, each with its source and what it reached where.

Learning rates are given per 256 images of a batch and scale linearly with the batch. Published
accuracies are those of the source, on ImageNet-1k, with the source's own code.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from .augment import Augment
from .errors import UsageError

OptimizerName = Literal["sgd", "rmsprop", "adamw"]
Trainable = Literal["head", "tail", "all"]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """`lr` per 256 images. `momentum` is SGD's and RMSprop's; `smoothing` RMSprop's alpha;
    `betas` AdamW's. Weight decay never touches norms and biases; `decay_depthwise` False spares
    depthwise kernels too, as the V1 paper does (3.3)."""

    name: OptimizerName = "sgd"
    lr: float
    momentum: float = 0.9
    smoothing: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay_depthwise: bool = True


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up over `warmup_epochs`, at most `warmup_share` of a phase; then cosine to
    `final` of the peak, or times `gamma` every `step_epochs`."""

    kind: Literal["cosine", "steps"] = "cosine"
    warmup_epochs: float = 5.0
    warmup_share: float = 0.1
    final: float = 0.0
    gamma: float = 0.98
    step_epochs: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training: which part learns, for which share of the whole, how fast.

    "head": the layers behind the pool. "tail": these and all blocks of stage 5. In both the
    blocks before are frozen, with their batch-norm statistics, and their output is computed once
    and cached. "all": every weight, from augmented pictures; with `frozen_norms` the blocks before
    stage 5 normalise by the statistics of the pretrained weights, not by each batch's.
    """

    train: Trainable
    share: float = 1.0
    lr_scale: float = 1.0
    frozen_norms: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how a network learns, but the data and the budget."""

    optimizer: Optimizer
    schedule: Schedule = Schedule()
    phases: tuple[Phase, ...] = (Phase(train="all"),)
    epochs: int
    batch_size: int
    accumulate: int = 1
    augment: Augment = field(default_factory=Augment)
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0  # decay of the moving average of the weights; 0 turns it off
    dropout: float | None = None  # None: the paper's
    class_weights: Literal["none", "balanced"] = "none"
    amp: Literal["none", "bf16", "fp16"] = "none"
    train_size: float = 1.0  # the training crop's side as a share of the evaluation crop's


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Single settings changed on top of a recipe; None keeps the recipe's.

    Args:
        optimizer: sgd, rmsprop or adamw.
        lr: Peak learning rate per 256 images.
        weight_decay: Not applied to norms and biases.
        batch_size: Images per optimizer step.
        accumulate: Split each batch into so many forward passes, to save memory.
        label_smoothing: Share of the target spread over all classes.
        mixup: Alpha of the beta distribution; 0 is off.
        cutmix: Alpha of the beta distribution; 0 is off.
        ema: Decay of the moving average of weights; 0 is off.
        dropout: Before the classifier.
        class_weights: "balanced" weighs rare classes up.
        amp: Automatic mixed precision, bf16 or fp16.
        policy: Augmentation policy: none, trivial (TrivialAugmentWide) or rand (RandAugment).
        erase: Probability of random erasing.
    """

    optimizer: OptimizerName | None = None
    lr: float | None = None
    weight_decay: float | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    label_smoothing: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    ema: float | None = None
    dropout: float | None = None
    class_weights: Literal["none", "balanced"] | None = None
    amp: Literal["none", "bf16", "fp16"] | None = None
    policy: Literal["none", "trivial", "rand"] | None = None
    erase: float | None = None


def override(recipe: Recipe, changes: Overrides) -> Recipe:
    """The recipe with every setting that `changes` gives."""
    given = {f.name: v for f in fields(changes) if (v := getattr(changes, f.name)) is not None}
    optimizer = {"optimizer": "name", "lr": "lr", "weight_decay": "weight_decay"}
    augment = {"policy": "policy", "erase": "erase"}
    nested = optimizer | augment
    return replace(
        recipe,
        optimizer=replace(
            recipe.optimizer, **{optimizer[k]: v for k, v in given.items() if k in optimizer}
        ),
        augment=replace(
            recipe.augment, **{augment[k]: v for k, v in given.items() if k in augment}
        ),
        **{k: v for k, v in given.items() if k not in nested},
    )


FINETUNE = Recipe(
    optimizer=Optimizer(name="adamw", lr=4e-3, weight_decay=0.05),
    schedule=Schedule(warmup_epochs=1.0),
    phases=(
        Phase(train="tail", share=0.6),
        Phase(train="all", share=0.4, lr_scale=0.1, frozen_norms=True),
    ),
    epochs=10,
    batch_size=64,
    augment=Augment(crop_scale=(0.6, 1.0)),
    label_smoothing=0.05,
    ema=0.99,
)
"""From ImageNet weights to a user's classes.

`mobilenet train fashion-mnist --out RUN --size 96 --minutes 2.5`: 92.81 % of 10,000 test pictures
(92.29 to 93.30 with 95 % confidence), one seed, two cores of an AMD EPYC (Zen 3, AVX2 only).
"""

V1_SCRATCH = Recipe(
    optimizer=Optimizer(
        name="rmsprop", lr=0.256 / 16, eps=0.0316, weight_decay=1e-5, decay_depthwise=False
    ),
    schedule=Schedule(kind="steps", warmup_epochs=5, gamma=0.94, step_epochs=2.5),
    epochs=500,
    batch_size=4096,
    label_smoothing=0.1,
    dropout=0.2,
)
"""MobileNetV1 from scratch: TensorFlow model garden, 72.33 % in 500 epochs of ImageNet.

Source: tensorflow/models official/vision/configs/experiments/image_classification. Its epsilon
stands inside the square root, PyTorch's outside: sqrt(1e-3).
"""

V2_SCRATCH = Recipe(
    optimizer=Optimizer(name="sgd", lr=0.045, weight_decay=4e-5),
    schedule=Schedule(kind="steps", warmup_epochs=0, gamma=0.98, step_epochs=1),
    epochs=300,
    batch_size=256,
)
"""MobileNetV2 from scratch: torchvision's references, 71.878 % in 300 epochs of ImageNet."""

V3_LARGE_SCRATCH = Recipe(
    optimizer=Optimizer(name="sgd", lr=0.125, weight_decay=2e-5),
    schedule=Schedule(warmup_epochs=5),
    epochs=600,
    batch_size=1024,
    augment=Augment(policy="trivial", erase=0.1),
    label_smoothing=0.1,
    mixup=0.2,
    cutmix=1.0,
    ema=0.9999,
    train_size=176 / 224,
)
"""MobileNetV3-Large from scratch: torchvision's second recipe (pytorch/vision pull 5560), 75.274 %
in 600 epochs of ImageNet, there with each picture four times an epoch, and evaluated at resize 232.
"""

V3_SMALL_SCRATCH = Recipe(
    optimizer=Optimizer(name="sgd", lr=0.1, weight_decay=4e-5),
    schedule=Schedule(warmup_epochs=5),
    epochs=150,
    batch_size=1024,
    dropout=0.1,
)
"""MobileNetV3-Small from scratch: d-li14/mobilenetv3.pytorch, 67.21 % in 150 epochs of ImageNet.

Small networks underfit: no mixup, no smoothing, little dropout.
"""

SHORT_SCRATCH = Recipe(
    optimizer=Optimizer(name="adamw", lr=8e-3, weight_decay=0.05),
    schedule=Schedule(warmup_epochs=0.5),
    epochs=8,
    batch_size=128,
    augment=Augment(crop_scale=(0.7, 1.0)),
    label_smoothing=0.05,
    dropout=0.0,
    ema=0.99,
)
"""From scratch in a few epochs, for small pictures and tens of thousands of them."""

RECIPES: dict[str, Recipe] = {
    "finetune": FINETUNE,
    "short_scratch": SHORT_SCRATCH,
    "v1_scratch": V1_SCRATCH,
    "v2_scratch": V2_SCRATCH,
    "v3_large_scratch": V3_LARGE_SCRATCH,
    "v3_small_scratch": V3_SMALL_SCRATCH,
}

_FROM_SCRATCH: dict[str, str] = {
    "mobilenet_v1": "v1_scratch",
    "mobilenet_v2": "v2_scratch",
    "mobilenet_v3_large": "v3_large_scratch",
    "mobilenet_v3_large_minimalistic": "v3_large_scratch",
    "mobilenet_v3_small": "v3_small_scratch",
    "mobilenet_v3_small_minimalistic": "v3_small_scratch",
}


def choose_recipe(name: str | None, *, model: str, pretrained: bool) -> str:
    """The recipe's name, by default FINETUNE from weights and the model's own from scratch.

    Raises UsageError for a name that there is not.
    """
    if name is None:
        return "finetune" if pretrained else _FROM_SCRATCH[model]
    if name not in RECIPES:
        raise UsageError(f"recipe {name!r}: expected one of {sorted(RECIPES)}")
    return name


@dataclass(frozen=True, kw_only=True)
class SceneRecipe:
    """How a network for scenes learns: AdamW, `lr` of the heads and `backbone_rate` times that of
    the backbone, warmed up over `warmup` of the budget; `ema`, the most that the moving average of
    the weights keeps a step. With pretrained weights the blocks up to the tap `frozen` stay as they
    are, which halves the time of a step and more. For the first `small` of the budget pictures are
    brought to `small_size` of the network's side: more of them are seen in the same time."""

    lr: float = 1e-3
    backbone_rate: float = 0.3
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "poly"] = "cosine"
    warmup: float = 0.03
    batch_size: int = 16
    epochs: int = 30
    ema: float = 0.998
    clip: float = 10.0
    frozen: str | None = "c3"
    small: float = 0.6
    small_size: float = 0.7


SCENE_RECIPES: dict[str, SceneRecipe] = {
    "detect": SceneRecipe(lr=2e-3),
    "segment": SceneRecipe(lr=2e-3),
    "keypoints": SceneRecipe(lr=2e-3),
    "faces": SceneRecipe(lr=5e-3, small=0.0),  # anchors are in pixels, and faces small already
}
_SCENE_OVERRIDES = ("lr", "weight_decay", "batch_size", "ema")


def override_scenes(recipe: SceneRecipe, changes: Overrides) -> SceneRecipe:
    """The recipe with every setting that `changes` gives. Raises UsageError for one that networks
    for scenes do not have, or that cannot be."""
    given = {f.name: v for f in fields(changes) if (v := getattr(changes, f.name)) is not None}
    if unknown := sorted(set(given) - set(_SCENE_OVERRIDES)):
        named = ", ".join(f"--{name.replace('_', '-')}" for name in unknown)
        raise UsageError(
            f"{named}: of classifiers; networks for scenes have {', '.join(_SCENE_OVERRIDES)}"
        )
    changed = replace(recipe, **given)
    if not changed.lr > 0 or changed.batch_size < 1 or not 0 <= changed.ema < 1:
        raise UsageError(
            f"lr {changed.lr}, batch_size {changed.batch_size}, ema {changed.ema}: expected a rate "
            "above 0, at least 1 picture, and a decay from 0 to below 1"
        )
    return changed
