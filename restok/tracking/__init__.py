"""MLflow, of which nothing else here knows: a store of runs, to which a mirror writes what lies on disk."""

from restok.tracking.entries import GOING_ON, Dataset, Model, Point, Tracked
from restok.tracking.models import folder as model_folder
from restok.tracking.pages import pages
from restok.tracking.place import TrackingError, address, is_server
from restok.tracking.store import Store

__all__ = ["GOING_ON", "Dataset", "Model", "Point", "Store", "Tracked", "TrackingError", "address", "is_server", "model_folder",
           "pages"]
