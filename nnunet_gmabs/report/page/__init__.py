"""The report: one HTML page about a data set's rounds, trainings and predictions, made from the files they left."""
