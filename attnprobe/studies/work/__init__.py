"""What is to be done for a study: the trainings and measurements that are missing, as jobs, and what they will cost."""
