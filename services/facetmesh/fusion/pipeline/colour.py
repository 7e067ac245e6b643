"""The source's skin brought into the target's light, and its sharpness matched.

After Reinhard et al. (2001), but locally, and from skin alone: statistics over the
whole face would take in hair and background. An image is taken apart into light (its
skin, much blurred) and detail (the rest). The result has the target's light and the
source's detail. Colours are CIE Lab, float32; a and b are handled as one complex
number, so that a ratio of two colours turns hue and stretches colourfulness, and
leaves grey (teeth, the white of the eye) grey.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.float32]
    Weights = NDArray[np.float32]
    Plane = NDArray[np.float32]
    Chroma = NDArray[np.complex64]

LIGHT_SCALE = 0.3
"""What counts as light rather than detail, in eye distances."""
CONTRAST = (0.7, 1.1)
"""How far details of the skin may be flattened or deepened: more turns grain into blotches."""
COLOURFULNESS = (0.4, 2.5)
"""How far colours may be dulled or heightened."""
GRAIN_SCALE_PX = 1.2
"""What counts as grain or sharpness rather than form, in pixels."""
TINT_LIMIT = 18.0
"""How much colour a shadow may gain, in Lab units."""
KNEE, CEILING = 1.2, 1.8
"""From how many times the skin's colourfulness on colours are held back, and what none exceeds by much."""
COLOURLESS = 3.0
"""A photo whose skin is hardly more colourful than this, in Lab units, is black and white."""
_SLACK = 4.0
_FILL = 0.02
_TINY = 1e-6


def match(source: Image, target: Image, skin: Weights, like: Weights, unit: float) -> Image:
    """The warped source in the target's light.

    Args:
        source: The warped source, (rows, columns, 3).
        target: The target in the same frame.
        skin: 1 where both show the face's bare skin, 0 elsewhere; not 0 everywhere.
        like: How much the warped source shows skin, 0 to 1, with soft edges.
        unit: The eye distance in pixels.
    """
    light_s = _light(source, skin, LIGHT_SCALE * unit)
    light_t = _light(target, skin, LIGHT_SCALE * unit)
    bare = skin > 0.5  # noqa: PLR2004 - half
    detail_s, detail_t = source[..., 0] - light_s[..., 0], target[..., 0] - light_t[..., 0]
    contrast = float(np.clip(_spread(detail_t[bare]) / _spread(detail_s[bare]), *CONTRAST))
    detail = _grain(source[..., 0], target[..., 0], detail_s, bare, like)
    lightness = np.clip(light_t[..., 0] + (1 + (contrast - 1) * like) * detail, 0, 100)
    if any(_colourless(_chroma(image)[bare]) for image in (source, target)):
        # There are no colours to match, or none to match them to: all takes the skin's.
        return np.dstack([lightness, light_t[..., 1:]]).astype(np.float32)
    colours = _colours(_chroma(source), _chroma(light_s), _chroma(light_t), like)
    tint = contrast * _tint(_chroma(target - light_t), detail_t, bare) - _tint(
        _chroma(source - light_s), detail_s, bare
    )
    colours += _shadows(tint * detail_s * like, colours, _chroma(light_t))
    colours = _restrained(colours, _chroma(light_t))
    return np.dstack([lightness, colours.real, colours.imag]).astype(np.float32)


def _light(image: Image, skin: Weights, scale: float) -> Image:
    """The skin, blurred; elsewhere what the skin around would be (normalised convolution, Knutsson, 1993)."""
    step = max(1, int(scale / 4))
    rows, columns = skin.shape
    size = max(1, columns // step), max(1, rows // step)
    sums = cv2.resize(image * skin[..., np.newaxis], size, interpolation=cv2.INTER_AREA)
    mass = cv2.resize(skin, size, interpolation=cv2.INTER_AREA)
    sums, mass = (cv2.GaussianBlur(part, (0, 0), scale / step) for part in (sums, mass))
    middle = np.median(image[skin > 0.5], axis=0)  # noqa: PLR2004 - half
    mean = (sums + _FILL * middle) / (mass[..., np.newaxis] + _FILL)
    light: Image = cv2.resize(mean.astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC)
    return light


def _colours(chroma: Chroma, light_s: Chroma, light_t: Chroma, like: Weights) -> Chroma:
    """The source's colours as far from the target's light as they were from the source's."""
    ratio = light_t / (light_s + _TINY)
    length = np.abs(ratio)
    ratio *= np.clip(length, *COLOURFULNESS) / (length + _TINY)
    # Skin, its pale highlights too, and what is as colourful (lips) is moved, not stretched: stretching makes it glow.
    vivid = np.maximum(like, np.clip((np.abs(chroma) / (np.abs(light_s) + _TINY) - 0.3) / 0.6, 0, 1))
    vivid *= np.clip(4 * (length - 1), 0, 1)
    moved: Chroma = (1 - vivid) * chroma * ratio + vivid * (chroma + light_t - light_s)
    return moved


def _tint(chroma: Chroma, detail: Plane, bare: NDArray[np.bool_]) -> complex:
    """How an image's skin changes colour with each step of lightness: its shadows are redder, or greyer."""
    return complex((chroma[bare] * detail[bare]).sum() / ((detail[bare] ** 2).sum() + 1e-3))


def _shadows(tint: Chroma, colours: Chroma, light: Chroma) -> Chroma:
    """A tint as far as it heightens colours, or takes away what they have more than the light."""
    length = np.abs(tint)
    tint = tint * TINT_LIMIT * np.tanh(length / TINT_LIMIT) / (length + _TINY)
    strength = np.abs(light) + _TINY
    added = (tint * light.conj()).real / strength
    surplus = np.maximum(0, (colours * light.conj()).real / strength - strength)
    share = np.where(added > 0, 5 * added / strength, surplus / (np.abs(added) + _TINY))
    gained: Chroma = tint * np.clip(share, 0, 1)
    return gained


def _restrained(colours: Chroma, light: Chroma) -> Chroma:
    """Colours of which none is much more colourful than the skin around."""
    length, skin = np.abs(colours), np.abs(light)
    knee, room = KNEE * skin + _SLACK, (CEILING - KNEE) * skin + _SLACK
    limited = np.minimum(length, knee) + room * np.tanh(np.maximum(0, length - knee) / room)
    restrained: Chroma = colours * (limited / (length + _TINY))
    return restrained


def _grain(source: Plane, target: Plane, detail: Plane, bare: NDArray[np.bool_], like: Weights) -> Plane:
    """The source's detail made as sharp, or as grainy, as the target's."""
    fine_s, fine_t = (plane - cv2.GaussianBlur(plane, (0, 0), GRAIN_SCALE_PX) for plane in (source, target))
    ratio = _spread(fine_s[bare]) / _spread(fine_t[bare])
    change = (
        (1 / ratio - 1) * fine_s * (0.5 + 0.5 * like)  # eyes, brows and mouth stay a little sharper than the skin
        if ratio > 1
        else np.sqrt(1 - ratio**2) * fine_t * like
    )
    made: Plane = (detail + change).astype(np.float32)
    return made


def _colourless(skin: Chroma) -> bool:
    return float(np.quantile(np.abs(skin), 0.95)) < COLOURLESS


def _chroma(image: Image) -> Chroma:
    both: Chroma = (image[..., 1] + 1j * image[..., 2]).astype(np.complex64)
    return both


def _spread(values: Plane) -> float:
    """Standard deviation, from the median absolute deviation, and never 0."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) + 0.1
