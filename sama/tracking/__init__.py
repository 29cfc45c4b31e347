"""MLflow as a mirror of result files, and live curves of what still trains. The only room that imports mlflow.

Result files are the truth; what stands in MLflow can be made anew from them at any time. It is imported only once it is
needed.
"""

from sama.tracking.mirroring import mirror
from sama.tracking.runs import DataSet, Outcome, Run, run_key
from sama.tracking.store import Database, Server, Store, server
from sama.tracking.streaming import Live, live

__all__ = ["DataSet", "Database", "Live", "Outcome", "Run", "Server", "Store", "live", "mirror", "run_key", "server"]
