"""The defences: every module here is found by its being here."""
