"""Parking: tasks that wait for their lock in the worker's parent, without a slot of its pool."""
