"""Foreground masks: the head, with scalp and skull, against air. No network, no GPU.

1. Downsample to block means with sides of about 128 pixels. 2. Find a rough head by Otsu's threshold (Otsu, IEEE Trans.
SMC 1979) on the square root of the smoothed image, which reduces the effect of bright fat and coil shading. 3. Measure
mean level and noise of the surrounding air, which at 0.05 T is a bright Rayleigh background, and lower the threshold to
just above it. Smooth only as much as the noise requires, to keep the outline in place. 4. Open to remove specks, close
across the dark skull, keep the largest component, fill holes in every plane, open to remove spikes, close channels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]

WORKING_SIZE = 128  # pixels per side of the working grid, at most 1.5 times that; lengths below are in its pixels
THIN = 4  # an axis this many times shorter than the longest one has thick slices; its planes stay separate
ROUGH_SIGMA = 1.5  # smoothing before Otsu's threshold
SIGMA_RANGE = (0.5, 2.0)  # smoothing before the final threshold
MARGIN = 8  # dilation of the rough head; the rest is air
SPECK = 1  # radius of the first opening,
SKULL = 6  # of the closing,
SPIKE = 2  # of the last opening,
CHANNEL = 1  # and of the last closing
EDGE_SHIFT = 1.0  # outward shift of a blurred outline in units of the blur's sigma (1.3 at a tenth of an edge)
MIN_AIR = 0.02  # smallest fraction of air in the volume for a reliable air level
AIR_SIGMAS = 4.0  # the threshold lies this many standard deviations of smoothed air above air,
AIR_TO_HEAD = 0.10  # and at least this fraction of the way from air to the head's median
SLAB = 16  # planes that are upsampled at once
MAD_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation, normal distribution


def head_mask_volume(volume: FloatArray) -> BoolArray:
    """The head in a volume (X, Y, Z) of any orientation and intensity scale; False everywhere if it is constant."""
    low, high = float(volume.min()), float(volume.max())
    if not low < high:
        return np.zeros(volume.shape, dtype=bool)
    fine = [n * THIN > max(volume.shape) for n in volume.shape]
    factors = [max(1, round(n / WORKING_SIZE)) if is_fine else 1 for n, is_fine in zip(volume.shape, fine, strict=True)]
    coarse = (_block_means(volume, factors) - np.float32(low)) / np.float32(high - low)
    bright, blur = _above_air(coarse, fine)
    head = _undo_blur(_clean(bright, fine), blur, fine)
    return _upsample(head, factors, volume.shape)


def head_mask_slice(image: FloatArray) -> BoolArray:
    """The head in a single slice (H, W); False everywhere if the slice is constant."""
    return head_mask_volume(image[..., None])[..., 0]


def _above_air(coarse: FloatArray, fine: list[bool]) -> tuple[BoolArray, float]:
    """Steps 2 and 3: everything clearly brighter than air.

    Args:    coarse: (X, Y, Z) in [0, 1]; fine: for each axis, False if it has thick slices.
    Returns: mask (X, Y, Z) with holes and specks, and the sigma in pixels of the smoothing that shifted its outline;
        the rough head and 0 if there is too little air to measure.
    """
    smooth = _smoothed(coarse, ROUGH_SIGMA, fine)
    otsu = float(threshold_otsu(np.sqrt(smooth).ravel())) ** 2
    rough = smooth > otsu
    air = ~_dilated(rough, MARGIN, fine)
    level = float(np.median(coarse[air])) if air.mean() >= MIN_AIR else math.inf
    contrast = float(np.median(smooth[rough])) - level
    if not contrast > 0:
        return rough, 0.0
    noise = MAD_TO_SIGMA * float(np.median(np.abs(coarse[air] - level)))
    # smoothing by s pixels divides the noise in a plane by sqrt(4 pi) s; this s equates the two bounds below
    sigma = float(np.clip(AIR_SIGMAS * noise / (AIR_TO_HEAD * contrast * math.sqrt(4 * math.pi)), *SIGMA_RANGE))
    smooth = _smoothed(coarse, sigma, fine)
    noise = MAD_TO_SIGMA * float(np.median(np.abs(smooth[air] - level)))
    return smooth > level + max(AIR_SIGMAS * noise, AIR_TO_HEAD * contrast), sigma


def _clean(bright: BoolArray, fine: list[bool]) -> BoolArray:
    """Step 4: one solid head from the bright pixels."""
    mask = _dilated(_eroded(bright, SPECK, fine, outside=False), SPECK, fine)
    mask = _fill_planes(_largest_component(_closed(mask, SKULL, fine)), fine)
    mask = _largest_component(_dilated(_eroded(mask, SPIKE, fine), SPIKE, fine))
    return _fill_planes(_closed(mask, CHANNEL, fine), fine)


def _undo_blur(mask: BoolArray, blur: float, fine: list[bool]) -> BoolArray:
    """Erode what smoothing by `blur` pixels added: a threshold far below half an edge's height shifts it outwards."""
    steps = int(EDGE_SHIFT * blur)
    return _eroded(mask, steps, fine)


def _closed(mask: BoolArray, radius: int, fine: list[bool]) -> BoolArray:
    """Closing by `radius` pixels, padded with air so that nothing is closed against the border."""
    padding = [radius if is_fine else 0 for is_fine in fine]
    padded = np.pad(mask, [(width, width) for width in padding])
    closed = _eroded(_dilated(padded, radius, fine), radius, fine, outside=False)
    return closed[tuple(slice(width, -width or None) for width in padding)] | mask


def _dilated(mask: BoolArray, steps: int, fine: list[bool]) -> BoolArray:
    """Dilation by `_ball`, `steps` times.

    The volume is one integer whose bits are its voxels, so shifts reach the neighbours: a twentieth of ndimage's time.
    An empty plane at the end of each axis catches bits that are shifted over the border.
    """
    padding = [(0, int(is_fine)) for is_fine in fine]
    padded = np.pad(mask, padding)
    bits, inside = _as_number(padded), _as_number(np.pad(np.ones_like(mask), padding))
    shifts = [math.prod(padded.shape[axis + 1 :]) for axis, is_fine in enumerate(fine) if is_fine]
    for _ in range(steps):
        dilated = bits
        for shift in shifts:
            dilated |= (bits << shift) | (bits >> shift)
        bits = dilated & inside
    content = np.frombuffer(bits.to_bytes(-(-padded.size // 8), "little"), dtype=np.uint8)
    voxels = np.unpackbits(content, count=padded.size, bitorder="little").reshape(padded.shape).view(np.bool_)
    return voxels[tuple(slice(n) for n in mask.shape)]


def _as_number(mask: BoolArray) -> int:
    return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")


def _eroded(mask: BoolArray, steps: int, fine: list[bool], *, outside: bool = True) -> BoolArray:
    """Erosion by `_ball`, `steps` times; `outside` is the mask's value beyond the border."""
    width = 0 if outside else 1
    padded = np.pad(mask, [(width * is_fine, width * is_fine) for is_fine in fine])
    eroded = ~_dilated(~padded, steps, fine)
    return eroded[
        tuple(slice(width * is_fine, width * is_fine + n) for is_fine, n in zip(fine, mask.shape, strict=True))
    ]


def _ball(fine: list[bool]) -> BoolArray:
    """The 3x3x3 cross, without its arms along thin axes."""
    ball = ndimage.generate_binary_structure(3, 1)
    for axis, is_fine in enumerate(fine):
        if not is_fine:
            np.moveaxis(ball, axis, 0)[[0, 2]] = False
    return ball


def _smoothed(volume: FloatArray, sigma: float, fine: list[bool]) -> FloatArray:
    return ndimage.gaussian_filter(volume, [sigma if is_fine else 0 for is_fine in fine], truncate=3.0)


def _largest_component(mask: BoolArray) -> BoolArray:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def _fill_planes(mask: BoolArray, fine: list[bool]) -> BoolArray:
    """Fill holes within planes: within thick slices, or else in the planes across each of the three axes in turn."""
    box = _box(mask)  # air around it reaches the border of every plane
    filled = mask[box]
    for axis in range(3):
        if all(is_fine for other, is_fine in enumerate(fine) if other != axis):
            filled = _filled(filled, axis)
    mask = mask.copy()
    mask[box] = filled
    return mask


def _box(mask: BoolArray) -> tuple[slice, ...]:
    """The smallest box that holds the mask; everything if it is empty."""
    planes = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    return tuple(slice(found[0], found[-1] + 1) if len(found) else slice(None) for found in planes)


def _filled(mask: BoolArray, axis: int) -> BoolArray:
    """Fill, in each plane across `axis`, the background that does not reach the plane's border."""
    labels, _ = ndimage.label(~mask, _ball([other != axis for other in range(3)]))
    outside = np.zeros(labels.max() + 1, dtype=bool)
    for other in range(3):
        if other != axis:
            outside[np.moveaxis(labels, other, 0)[[0, -1]].ravel()] = True
    outside[0] = False  # label 0 is the mask itself
    return ~outside[labels]


def _block_means(volume: FloatArray, factors: list[int]) -> FloatArray:
    """Means of blocks of `factors` voxels; the last planes are repeated to fill incomplete blocks."""
    padding = [(0, -n % f) for n, f in zip(volume.shape, factors, strict=True)]
    padded = np.pad(volume, padding, mode="edge") if any(p for _, p in padding) else volume
    for axis, factor in enumerate(factors):
        if factor > 1:
            slabs = [np.moveaxis(padded, axis, 0)[start::factor] for start in range(factor)]
            padded = np.moveaxis(sum(slabs[1:], start=slabs[0]) / np.float32(factor), 0, axis)
    return np.ascontiguousarray(padded, dtype=np.float32)


def _upsample(mask: BoolArray, factors: list[int], shape: tuple[int, ...]) -> BoolArray:
    """A mask of blocks on the full grid: linear interpolation between block centres, threshold one half."""
    soft = mask.astype(np.float32)
    for axis in (0, 1):
        soft = _interpolated(soft, axis, factors[axis], np.arange(shape[axis]))
    if factors[2] == 1:
        return soft > 0.5
    head = np.empty(shape, dtype=bool)
    for start in range(0, shape[2], SLAB):  # whole volumes would peak in memory here
        planes = np.arange(start, min(start + SLAB, shape[2]))
        head[..., planes] = _interpolated(soft, 2, factors[2], planes) > 0.5
    return head


def _interpolated(soft: FloatArray, axis: int, factor: int, planes: NDArray[np.intp]) -> FloatArray:
    """The voxel planes `planes` of an axis with blocks of `factor` voxels, by linear interpolation of block centres."""
    if factor == 1:
        return soft.take(planes, axis)
    position = np.clip((planes + 0.5) / factor - 0.5, 0, soft.shape[axis] - 1)
    lower = np.minimum(position.astype(int), max(soft.shape[axis] - 2, 0))
    upper = np.minimum(lower + 1, soft.shape[axis] - 1)
    weight = (position - lower).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
    return soft.take(lower, axis) * (1 - weight) + soft.take(upper, axis) * weight
