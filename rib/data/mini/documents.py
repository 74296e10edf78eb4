"""Text files of mini: the READMEs, and ObjectNet's mapping files in their real formats."""

from __future__ import annotations

from rib.data.mini.classes import CLASSES, FOLDERS, STRANGERS


def documents() -> dict[str, object]:
    """Return the contents of mini's text files by path, as text (a string) or as JSON data (anything else)."""
    from rib.data.mini.specs import catalog

    synset = {c.wnid: c.synset for c in CLASSES}
    mappings = "objectnet-1.0/mappings"
    labels = {f.name: f.label for f in FOLDERS} | {name: label for name, (label, _) in STRANGERS.items()}
    wnids = catalog().outputs
    readme = "Drawn by rib in the layout of the real set: {}. Apache-2.0.\n"
    return {
        "imagenet-a/README.txt": readme.format("https://github.com/hendrycks/natural-adv-examples"),
        "imagenet-r/README.txt": readme.format("https://github.com/hendrycks/imagenet-r"),
        f"{mappings}/folder_to_objectnet_label.json": dict(sorted(labels.items())),
        f"{mappings}/objectnet_to_imagenet_1k.json": {f.label: "; ".join(synset[w] for w in f.wnids) for f in FOLDERS},
        f"{mappings}/pytorch_to_imagenet_2012_id.json": {str(i): i for i in range(len(wnids))},
        f"{mappings}/imagenet_to_label_2012_v2": "".join(f"{synset.get(w, w)}\n" for w in wnids),
    }
