"""Images as examples to train on: read some batches before their turn, normalised, randomly changed."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad


class Augmentation(Protocol):
    """Random changes of a training batch."""

    @property
    def crop_padding(self) -> int: ...  # noqa: D102
    @property
    def horizontal_flip(self) -> bool: ...  # noqa: D102
    @property
    def random_resized_crop(self) -> tuple[float, float] | None: ...  # noqa: D102


class StoredImages(Protocol):
    """Images that are decoded when they are read; `sama.data.encoded.EncodedImages` is one."""

    def __len__(self) -> int: ...

    def begin(self, rows: np.ndarray, crops: np.ndarray | None = None) -> Callable[[], np.ndarray]:
        """Begin to decode; the function that comes back waits, and gives uint8 [batch, channels, height, width]."""
        ...


CROP_RATIO = (3 / 4, 4 / 3)  # width : height of a random resized crop, as in torchvision


@dataclass(frozen=True)
class ImageExamples:
    """Images uint8 [n, channels, height, width], held or stored, and labels int64 [n], with the pixel statistics."""

    images: Tensor | StoredImages
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    ahead = 2  # batches that are begun before their turn

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, batch_size: int) -> None:
        """Images take their turn as they are drawn."""

    def begin(
        self,
        indices: Tensor,
        device: torch.device,
        recipe: Augmentation | None = None,
        generator: torch.Generator | None = None,
    ) -> Callable[[], Tensor]:
        """Begin to read a batch, so that stored images are decoded while the device computes another one.

        Args:
            indices: of the examples, int64 [batch].
            device: where the batch goes.
            recipe: random changes; None: none.
            generator: what they are drawn from; nothing else may draw from it before the batch is finished.

        Returns:
            A function that waits for the images and gives normalised float32 inputs [batch, channels, height, width]
            on `device`, channels last in memory.

        Raises:
            ValueError: a random resized crop is asked for, but the images have been brought to one size already.
        """
        pixels = self._begin_pixels(indices, None if recipe is None else recipe.random_resized_crop, generator)

        def inputs() -> Tensor:
            batch = self._normalised(pixels(), device)
            return batch if recipe is None or generator is None else augment(batch, recipe, generator)

        return inputs

    def _begin_pixels(
        self, indices: Tensor, crop: tuple[float, float] | None, generator: torch.Generator | None
    ) -> Callable[[], Tensor]:
        images = self.images
        if isinstance(images, Tensor):
            if crop is not None:
                raise ValueError(
                    "a random resized crop is taken of stored images of any size: set data.storage to encoded"
                )
            return lambda: images[indices]
        crops = None if crop is None else _draw_crops(len(indices), crop, generator).numpy()
        decoded = images.begin(indices.numpy(), crops)
        return lambda: torch.from_numpy(decoded())

    def inputs(self, indices: Tensor, device: torch.device) -> Tensor:
        """The batch that `begin` begins, without random changes."""
        return self.begin(indices, device)()

    def batches(
        self, batch_size: int, device: torch.device, *, rank: int = 0, world_size: int = 1, skip: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(indices, inputs) of all examples in order, `batch_size` at a time, some batches begun early.

        With several processes, process r of R gets batches r, R + r, …: each example once, nothing is padded, and a
        batch is the same whoever gets it; the first `skip` of its batches are left out.
        """
        begun: deque[tuple[Tensor, Callable[[], Tensor]]] = deque()
        for chunk in torch.arange(len(self)).split(batch_size)[rank::world_size][skip:]:
            begun.append((chunk, self.begin(chunk, device)))
            if len(begun) > self.ahead:
                indices, finish = begun.popleft()
                yield indices, finish()
        for indices, finish in begun:
            yield indices, finish()

    def _normalised(self, pixels: Tensor, device: torch.device) -> Tensor:
        images = pixels.to(device, non_blocking=True).float().div_(255)
        images = images.contiguous(memory_format=torch.channels_last)
        mean = torch.tensor(self.mean, device=device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=device).view(-1, 1, 1)
        return images.sub_(mean).div_(std)


def _draw_crops(count: int, area: tuple[float, float], generator: torch.Generator | None) -> Tensor:
    """(area, ratio, top, left) of random crops [count, 4]; area is a fraction of the image, places lie in [0, 1)."""
    drawn = torch.rand(count, 4, generator=generator, dtype=torch.float64)
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    drawn[:, 0] = area[0] + (area[1] - area[0]) * drawn[:, 0]
    drawn[:, 1] = (low + (high - low) * drawn[:, 1]).exp()
    return drawn


def augment(images: Tensor, recipe: Augmentation, generator: torch.Generator) -> Tensor:
    """Random crop and flip of each image of the batch [batch, channels, height, width]."""
    if recipe.crop_padding:
        padding = recipe.crop_padding
        height, width = images.shape[-2:]
        padded = pad(images, (padding,) * 4)
        tops = torch.randint(0, 2 * padding + 1, (len(images),), generator=generator).to(images.device)
        lefts = torch.randint(0, 2 * padding + 1, (len(images),), generator=generator).to(images.device)
        rows = tops[:, None, None] + torch.arange(height, device=images.device)[None, :, None]
        columns = lefts[:, None, None] + torch.arange(width, device=images.device)[None, None, :]
        batch = torch.arange(len(images), device=images.device)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)
    if recipe.horizontal_flip:
        mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images
