"""SSD300 with VGG-16, with default boxes and preprocessing of torchvision's ssd300_vgg16."""

from detectron2.config import LazyCall as L

from hybrid_cascade.modeling import SSD, SSDVGG16, DefaultBoxes

model = L(SSD)(
    backbone=L(SSDVGG16)(highres=False, freeze_at=1),
    anchor_generator=L(DefaultBoxes)(
        # For each map: aspect ratios besides 1, box sides as fractions of the image (with one more
        # at the end), and the stride in pixels.
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300],
    ),
    image_size=300,
    num_classes=80,
    pixel_mean=[122.99925, 116.9991, 103.9992],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="RGB",
)
