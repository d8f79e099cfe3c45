"""Commands of nbgrader for many assignments in one process, which its command line does one at a time: `make assignments`.

Runs in the environment of nbgrader, in the folder of the course. Each argument is a command:
`generate_assignment:NAME` makes the students' version, `autograde:NAME:STUDENT` marks what a student handed in. Prints one
line a command; for `autograde` the points of each exercise, as JSON.
"""

import json
import os
import sys
from pathlib import Path

from nbgrader.apps.api import NbGraderAPI
from traitlets.config import Config, PyFileConfigLoader


def points(api, name, student):
    """Points of each marked cell of a submission, from the gradebook."""
    with api.gradebook as gradebook:
        submission = gradebook.find_submission(name, student)
        grades = {grade.name: grade.score for notebook in submission.notebooks for grade in notebook.grades}
        return {"total": submission.score, "of": submission.max_score, "points": grades}


def main(commands):
    # nbgrader starts alembic by its name, which stands beside the Python of its environment
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    config = Config(PyFileConfigLoader("nbgrader_config.py").load_config())
    config.CourseDirectory.root = str(Path.cwd())
    api = NbGraderAPI(config=config)
    for line in commands:
        command, name, *student = line.split(":")
        done = getattr(api, command)(name, *student)
        if not done["success"]:
            return f"nbgrader {line}\n{done.get('log', '')}{done.get('error', '')}"
        print(line, json.dumps(points(api, name, *student)) if student else "", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
