"""schemathesis: what the OpenAPI document says against what the server does, by requests that it makes up."""

import subprocess
import sys
import xml.etree.ElementTree as xml

from cases import *


@case
def every_route_does_what_the_document_says():
    report = Path.cwd() / "schemathesis.xml"
    command = [str(Path(sys.executable).parent / "st"), "--no-color", "run", f"{URL}/openapi.json", "--seed", "1"]
    command += ["--max-examples", os.environ["ACCEPTANCE_EXAMPLES"], "--request-timeout", "60"]
    # One with known exceptions takes its place.
    command += ["--exclude-checks", "positive_data_acceptance", "--report", "junit", "--report-junit-path", str(report)]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=840)
    print(done.stdout, done.stderr)
    routes = list(xml.parse(report).getroot().iter("testcase"))
    faults = [f"{route.get('name')}: {fault.get('message')} {fault.text}" for route in routes for fault in route if fault.tag in ("failure", "error")]
    assert not faults, "\n".join(faults)
    assert done.returncode == 0 and len(routes) > 10, done.stdout[-3000:]


main()
