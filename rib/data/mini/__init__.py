"""mini, the built-in benchmark: procedurally drawn images in the folder layout of the real datasets.

Classes are 40 real WordNet ids; their objects differ in outline, texture and colour (`rib.data.mini.patterns`). Val is
clean and V2 slightly shifted. A has small, partly hidden objects on confusing backgrounds, R shows renditions, Sketch
contours, and ObjectNet rotated objects on unusual backgrounds. Cartoon, Drawing and C are made from the images of val,
as the real ones are. The images are drawn into the cache on first use.
"""

from rib.data.mini.build import DRAWING_VERSION, digests, ensure
from rib.data.mini.specs import catalog

__all__ = ["DRAWING_VERSION", "catalog", "digests", "ensure"]
