"""Airflow DAGs out of project files; the only importer of airflow. It imports the spec and no library of models."""
