"""Studies on disk: a search whose trials are run by any number of processes, machines or people, outside JAX."""

from jaxnas.studies.cluster import work_on_ray
from jaxnas.studies.ledger import OpenTrial, TrialRecord
from jaxnas.studies.study import Study, study
from jaxnas.studies.worker import work

__all__ = ["OpenTrial", "Study", "TrialRecord", "study", "work", "work_on_ray"]
