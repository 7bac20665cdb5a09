"""All four losses, three seeds each: twelve heads on one forward pass of a Glint360K iResNet50.

    python network.py --config_file config/config_ir50_all_glint360k.py \
        --set train_images=PATH backbone_weights=PATH verification.dataset_path=PATH
    python evaluation/compare.py --methods runs/glint_ir50_all --target faces:FOLDER --out compared

Heads, losses and learning rates are those of the four configs beside this one, and each head ends
as if it were trained alone (docs/train.md). PCNet's own config stops after 2 epochs; here it
goes on at its last learning rate, a hundredth of the first, while the others train. `compare` then
prints the twelve and, below them, each loss with the spread of its seeds.
"""

from utils.config import Branch, Method, Schedule, TrainConfig, Verification


def rate(lr: float, drop_at: tuple[float, ...] = (6, 9)) -> Schedule:
    """Return the schedule with another learning rate."""
    return Schedule(epochs=12, steps_per_epoch=1000, lr=lr, drop_at=drop_at)


QUALITY = Method("fc2", output="probability", hidden=256)
VARIANCE = Method("fc2", output="variance", hidden=512)
VARIANCES = Method("fc2", output="variance", hidden=512, dim=512)
HEADS = {
    "idq": (QUALITY, Method("idq", scale=16.0, margin=0.45), rate(1e-2)),
    "pcnet": (QUALITY, Method("pcnet"), rate(3e-2, drop_at=(1, 1.5))),
    "fast_mls": (VARIANCE, Method("fast_mls"), rate(3e-3)),
    "mls": (VARIANCES, Method("mls"), rate(3e-3)),
}

config = TrainConfig(
    name="glint_ir50_all",
    backbone=Method("iresnet", depth=50),
    backbone_weights="weights/glint360k_cosface_r50_fp16_0.1/backbone.pth",
    branches=tuple(
        Branch(f"{name}-{seed}", head=head, loss=loss, seed=seed, schedule=schedule)
        for name, (head, loss, schedule) in HEADS.items()
        for seed in (0, 1, 2)
    ),
    train_images="datasets/ms1m-retinaface-t1",
    classes_per_batch=10,
    images_per_class=8,
    schedule=rate(1e-2),
    verification=Verification(
        dataset_path="datasets/ms1m-retinaface-t1", targets=("lfw", "cfp_fp", "agedb_30")
    ),
)
