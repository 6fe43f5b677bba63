"""The attacks by name: what members send in which phase. A new one is a file with its move, and a line here."""

from fedmd.attacks.backdoor import plant, stamped_count
from fedmd.attacks.base import Attack, throughout
from fedmd.attacks.label_flip import flip
from fedmd.attacks.noise import disturb
from fedmd.attacks.steering import accumulate, send_trigger

ATTACKS: dict[str, Attack] = {
    "none": Attack({}),
    "accumulative": Attack({"accumulative": accumulate, "trigger": send_trigger}),
    "trigger_only": Attack({"trigger": send_trigger}),
    "label_flip": Attack(throughout(flip), looks_at_model=False),
    "backdoor": Attack(throughout(plant), poisoned=stamped_count, looks_at_model=False),
    "noise": Attack(throughout(disturb), looks_at_model=False),
}
