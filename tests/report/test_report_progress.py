from fedmd.report.monitoring.progress import round_line


def test_a_round_in_a_line(round_report):
    report = round_report(3, "accumulative", accuracy=0.913, before=[0.1, 0.3], threshold=0.4)
    assert round_line(report, 24) == (
        "round    4/24  accumulative  accuracy  91.3 %  discrepancy 0.200 (threshold 0.400)  "
        "corrected   0 %  rejected   0 %  1 client(s) refused: labels out of range"
    )


def test_attack_success_stands_beside_accuracy_where_it_is_measured(round_report):
    line = round_line(round_report(3, accuracy=0.913, attack_success=0.25), 24)
    assert "accuracy  91.3 %  attack success  25.0 %  discrepancy" in line
