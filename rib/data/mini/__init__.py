"""The built-in benchmark: a toy world drawn on first use, laid out on disk as the real datasets are.

Classes are real WordNet ids whose objects are told by outline, texture and colour (`patterns`). Val is clean, V2 a
slight shift; A is small, half hidden, before confusing backgrounds; R shows renditions, Sketch contours, ObjectNet
rotations before odd backgrounds; Cartoon, Drawing and C are made of val's images, as the real ones are.
"""

from rib.data.mini.build import DRAWING_VERSION, digests, ensure
from rib.data.mini.specs import catalog

__all__ = ["DRAWING_VERSION", "catalog", "digests", "ensure"]
