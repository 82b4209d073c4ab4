"""Airflow's DAGs of the model projects in the folder that TIDEWHEEL_PROJECTS names.

`tidewheel.pipelines.bundle.ProjectsBundle` gives each project a copy of this file under the project's name, and a copy
holds that project's DAGs: a mistake in one project file is an import error of its copy and stops no other project. Read
as it is, the file holds the DAGs of every project, or the mistakes of the first that has any.
"""

from airflow.sdk import DAG  # noqa: F401  # Airflow opens only files in which it finds these words

from tidewheel.pipelines.factory import dags_of

globals().update(dags_of(__file__))
