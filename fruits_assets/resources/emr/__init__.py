"""Amazon EMR: stages as steps of a cluster that is started when there is none.

settings.py     what can be set
places.py       which places are refused
instances.py    what machines are like and cost, and what Spark gets of them
request.py      what a cluster is asked for
cluster.py      finding one, starting it, sharing it; nodes.py, what it consists of
step.py         a step from the adding to its result
cost.py         what AWS has charged for a day
runner.py       all of it, as the resource that assets ask for
step_script.py  what runs on the cluster
"""

from fruits_assets.resources.emr.errors import EmrError
from fruits_assets.resources.emr.runner import EmrSpark

__all__ = ["EmrError", "EmrSpark"]
