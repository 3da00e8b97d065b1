from sft_core.reports import StageReport
from tasks.stage import at_most, stage


@stage("audit_bias")
def audit_bias(data, config, seed) -> StageReport:
    return StageReport(stage="audit_bias")
