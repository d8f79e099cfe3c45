"""Real lines where there are, invented ones for what is missing: to try the chapters while the experiment runs. Into a folder elsewhere."""
import shutil, sys
from pathlib import Path
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]
import mkfake
from experiments import decision_map as m

def write(folder, real):
    folder, real = Path(folder), Path(real)
    mkfake.write(folder, 0)
    out = []
    for name in ("decision_map.csv", "decision_map_curves.csv", "decision_map_why.csv", "decision_map_distance.csv", "decision_map_tried.csv"):
        fake, true = m.solar_cells.known(folder / name), m.solar_cells.known(real / name) if (real / name).exists() else []
        if name in ("decision_map_why.csv", "decision_map_distance.csv", "decision_map_tried.csv"):
            shutil.copy(real / name, folder / name); continue
        key = lambda r: (r["dataset"], r["method"], r["photos"], r["seed"])
        there = {key(r) for r in true}
        sizes = {r["dataset"]: r for r in true}
        missing = [r for r in fake if key(r) not in there]
        for r in missing:
            like = [x for x in true if (x["dataset"], x["photos"]) == (r["dataset"], r["photos"])]
            if like: r["n_train"] = like[0]["n_train"]; r["n_test"] = like[0]["n_test"]
        out.append((name, len(missing), len(true)))
        m.write(folder / name, list(fake[0]), sorted([*true, *missing], key=mkfake.place))
    print(out)
if __name__ == "__main__":
    write(*sys.argv[1:])
