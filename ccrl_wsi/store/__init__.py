"""One slide's result on disk. The only place that knows zarr.

``slide.zarr`` (Zarr format 3) is laid out so that AnnData, SpatialData and GeoPandas open it. It
is assembled from parts, gets its clusters, and is sealed with checksums; without a seal it is not
finished.
"""

from ccrl_wsi.store.assemble import assemble_store
from ccrl_wsi.store.attach import add_files, update_description
from ccrl_wsi.store.check import check_store
from ccrl_wsi.store.clusters import codebook_of, write_clusters
from ccrl_wsi.store.damage import telling_damage
from ccrl_wsi.store.heading import fetch_heading
from ccrl_wsi.store.ids import cell_uuids
from ccrl_wsi.store.labels import drop_labels, write_labels
from ccrl_wsi.store.layout import Chunking, StoreDescription
from ccrl_wsi.store.placing import remove_leftovers
from ccrl_wsi.store.published import fetch_store, publish_changed_store, publish_new_store
from ccrl_wsi.store.read import CellBatch, SlideStore, open_store
from ccrl_wsi.store.seal import is_sealed, seal_store
from ccrl_wsi.store.table_file import TableFile, create_table, is_table

__all__ = [
    "CellBatch",
    "Chunking",
    "SlideStore",
    "StoreDescription",
    "TableFile",
    "add_files",
    "assemble_store",
    "cell_uuids",
    "check_store",
    "codebook_of",
    "create_table",
    "drop_labels",
    "fetch_heading",
    "fetch_store",
    "is_sealed",
    "is_table",
    "open_store",
    "publish_changed_store",
    "publish_new_store",
    "remove_leftovers",
    "seal_store",
    "telling_damage",
    "update_description",
    "write_clusters",
    "write_labels",
]
