"""How suspicious a sample looks: every module here is found by its being here."""
