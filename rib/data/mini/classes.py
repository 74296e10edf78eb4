"""The 40 classes of mini: WordNet ids of ImageNet, with their real membership in ImageNet-A, -R and ObjectNet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_TABLE = """
n01443537 -R  goldfish, Carassius auratus
n01944390 AR  snail
n02007558 AR  flamingo
n02165456 AR  ladybug, ladybeetle, lady beetle, ladybird, ladybird beetle
n02279972 AR  monarch, monarch butterfly, milkweed butterfly, Danaus plexippus
n02317335 AR  starfish, sea star
n02391049 -R  zebra
n02690373 A-  airliner
n02708093 --  analog clock
n02769748 -R  backpack, back pack, knapsack, packsack, rucksack, haversack
n02782093 A-  balloon
n02791124 --  barber chair
n02802426 AR  basketball
n02883205 AR  bow tie, bow-tie, bowtie
n02906734 AR  broom
n02909870 -R  bucket, pail
n02948072 AR  candle, taper, wax light
n03196217 A-  digital clock
n03291819 A-  envelope
n03376595 --  folding chair
n03481172 -R  hammer
n03590841 A-  jack-o'-lantern
n03676483 -R  lipstick, lip rouge
n03775071 AR  mitten
n04099969 A-  rocking chair, rocker
n04133789 AR  sandal
n04146614 AR  school bus
n04254680 -R  soccer ball
n04285008 --  sports car, sport car
n04409515 -R  tennis ball
n04442312 A-  toaster
n04507155 A-  umbrella
n04522168 -R  vase
n04591157 --  Windsor tie
n04591713 AR  wine bottle
n06874185 --  traffic light, traffic signal, stoplight
n07734744 AR  mushroom
n07749582 AR  lemon
n07753592 AR  banana
n07873807 -R  pizza, pizza pie
"""


@dataclass(frozen=True)
class Appearance:
    """Look of a class's objects, as indices into `OUTLINES`, `TEXTURES` and `PALETTES` of `rib.data.mini.patterns`."""

    outline: int
    texture: int
    palette: int

    @classmethod
    def of(cls, outline: int, texture: int) -> Appearance:
        """Create the appearance with an outline and a texture (indices), and the palette that belongs to them.

        Any two of the three determine the class.
        """
        return cls(outline, texture, (outline + texture) % 8)


@dataclass(frozen=True)
class MiniClass:
    """One class of mini: its WordNet id and name, its membership in ImageNet-A and -R, and the look of its objects.

    Attributes:
        wnid: WordNet id, one of ImageNet's 1000.
        synset: Name in ImageNet's list of labels.
        in_a: True if the real ImageNet-A has the class.
        in_r: True if the real ImageNet-R has the class.
        appearance: Look of its objects.
    """

    wnid: str
    synset: str
    in_a: bool
    in_r: bool
    appearance: Appearance


def _parse(index: int, line: str) -> MiniClass:
    wnid, subsets, synset = line.split(maxsplit=2)
    outline, variant = index % 8, index // 8
    return MiniClass(wnid, synset, "A" in subsets, "R" in subsets, Appearance.of(outline, (outline + variant) % 8))


CLASSES: tuple[MiniClass, ...] = tuple(_parse(i, line) for i, line in enumerate(_TABLE.strip().splitlines()))
"""All classes in the order of their WordNet ids, which is the order of a model's outputs."""

BY_WNID: dict[str, MiniClass] = {c.wnid: c for c in CLASSES}


@dataclass(frozen=True)
class Folder:
    """A folder of ObjectNet: its name, its label in ObjectNet's mapping files, and the WordNet ids of its class."""

    name: str
    label: str
    wnids: tuple[str, ...]


FOLDERS: tuple[Folder, ...] = (
    Folder("alarm_clock", "Alarm clock", ("n02708093", "n03196217")),
    Folder("backpack", "Backpack", ("n02769748",)),
    Folder("banana", "Banana", ("n07753592",)),
    Folder("broom", "Broom", ("n02906734",)),
    Folder("bucket", "Bucket", ("n02909870",)),
    Folder("candle", "Candle", ("n02948072",)),
    Folder("chair", "Chair", ("n02791124", "n03376595", "n04099969")),
    Folder("envelope", "Envelope", ("n03291819",)),
    Folder("hammer", "Hammer", ("n03481172",)),
    Folder("lemon", "Lemon", ("n07749582",)),
    Folder("lipstick", "Lipstick", ("n03676483",)),
    Folder("sandal", "Sandal", ("n04133789",)),
    Folder("tie", "Tie", ("n02883205", "n04591157")),
    Folder("toaster", "Toaster", ("n04442312",)),
    Folder("umbrella", "Umbrella", ("n04507155",)),
    Folder("vase", "Vase", ("n04522168",)),
    Folder("wine_bottle", "Wine bottle", ("n04591713",)),
    Folder("winter_glove", "Winter glove", ("n03775071",)),
)
"""ObjectNet's class folders; as in the real dataset, a class may have several WordNet ids."""

STRANGERS: dict[str, tuple[str, Appearance]] = {
    "air_freshener": ("Air freshener", Appearance.of(0, 6)),
    "coin_money": ("Coin (money)", Appearance.of(3, 1)),
}
"""ObjectNet folders that are not a class of ImageNet (200 of the real dataset's 313); their images are ignored."""


@cache
def output_wnids() -> tuple[str, ...]:
    """Return the WordNet id of each of ImageNet-1K's outputs, in order."""
    return tuple(files("rib.data").joinpath("resources", "imagenet_wnids.txt").read_text().split())


@cache
def output_ids() -> dict[str, int]:
    """Return the output index, 0..999, of each WordNet id of ImageNet-1K."""
    return {wnid: i for i, wnid in enumerate(output_wnids())}
