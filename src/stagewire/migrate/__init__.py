"""Moving in and out: files of records, and the registries of MLflow, as records of ours."""
