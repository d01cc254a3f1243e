# %% [markdown]
# # Births on four nodes
#
# A hospital holds records of births. A data scientist would like to know the average weight. The records never leave
# the hospital's node: what leaves is decided by the person who owns them.
#
# You see the whole way here: first the owner, who publishes, then the scientist, who finds, explores, is refused,
# computes, and asks. Every result is compared with the one in the clear, which this notebook can do only because it
# plays both roles.
#
# To run it yourself, start an empty grid (a network and four nodes) in a terminal:
#
#     .venv/bin/python manage.py rungrid --dir data/grid --port 8000 --ready-file data/grid.json
#
# and this notebook in the folder of the project, with `GRID_READY=data/grid.json` in its environment.

# %%
import json
import os
from pathlib import Path

import torch

import gridclient as grid
from demo import births

where = json.loads(Path(os.environ["GRID_READY"]).read_text())
hospital_url = where["nodes"]["hospital"]["url"]
network_url = where["network"]["url"]
phrase = "a-long-demo-password"

# %% [markdown]
# ## Accounts
#
# Nobody can sign up by themselves: administrators make accounts. Olivia owns data on three of the nodes. Dana, the
# scientist, has an account on the *network* only. One sign-in there is enough for all its nodes.

# %%
for name in ("hospital", "company", "university"):
    with grid.connect(where["nodes"][name]["url"], **where["nodes"][name]["admin"]) as admin:
        admin.create_user("olivia", password=phrase, roles=["owner"])
        if name == "hospital":
            for scientist in ("bob", "ana", "alice"):
                admin.create_user(scientist, password=phrase, roles=["scientist"])
with grid.connect_network(network_url, **where["network"]["admin"]) as operator:
    operator.create_user("dana", password=phrase, roles=["scientist"])

# %% [markdown]
# ## The owner publishes, in six steps
#
# **1. Connect** to the hospital's node.

# %%
hospital = grid.connect(hospital_url, username="olivia", password=phrase)
print(hospital.id, "as", hospital.user)

# %% [markdown]
# **2. Load** the births of February: 1,236 real births come with the R package mosaicData, 85 of them in a February.
# One has no height of the mother and is left out. There is no newborn's length in the table, so the height here is
# the *mother's*, and the names of the columns say so.

# %%
february = births.month(2)
print(f"{february.rows} births, {february.incomplete} incomplete, {len(february.values)} to publish")
print(births.COLUMNS)
print(february.values[:2])

# %% [markdown]
# **3. Make private.** Bob, Ana and Alice may read the values; nobody else may, for now. The bounds are the lowest and
# highest value that a column can have, from knowledge about births, never taken from the data: they are public.

# %%
records = grid.private_tensor(
    february.values,
    columns=["weight_kg", "mother_height_cm"],
    bounds=([0.5, 120.0], [6.0, 200.0]),
    allowed_users=["bob", "ana", "alice"],
)

# %% [markdown]
# **4. Tag**, **5. describe**, **6. send.** Tags and description are public: they are how others find the records. What
# comes back from `send` is a pointer. The values are on the node now.

# %%
records = records.tag("#February", "#birth-records")
records = records.describe("Births of February. Columns: weight in kilogram, mother's height in centimetre.")
print(records.send(hospital))

# %% [markdown]
# The company and the university do the same with March and April.

# %%
for name, number, month in (("company", 3, "March"), ("university", 4, "April")):
    node = grid.connect(where["nodes"][name]["url"], username="olivia", password=phrase)
    records = grid.private_tensor(births.month(number).values, columns=births.COLUMNS, bounds=births.BOUNDS)
    print(records.tag(f"#{month}", "#birth-records").describe(f"Births of {month}.").send(node))

# %% [markdown]
# ## The scientist explores
#
# Dana **connects** to the network, and **searches**. Every term must match: with `#` a tag, without it a tag or a whole
# word of the description. The network only knows what the nodes announce, which takes a moment after publishing.

# %%
import time


def search(*terms, nodes=1):
    """Search until so many nodes have announced what is searched for."""
    until = time.monotonic() + 30
    while len(found := network.search(*terms)) < nodes and time.monotonic() < until:
        time.sleep(0.1)
    return found


network = grid.connect_network(network_url, username="dana", password=phrase)
found = search("#February", "#birth-records")
print(found)

# %% [markdown]
# She takes a **reference** and **explores** it. Description, tags, columns, shape and bounds are public. The mock rows
# are made up from the bounds, to try code on.

# %%
pointer = found["hospital"][0]
print(pointer.description)
print(pointer.tags, pointer.columns)
print(tuple(pointer.shape), pointer.dtype)
print(pointer.bounds)
print(pointer.mock[:2])

# %% [markdown]
# She asks for a **copy**, and is refused. The error says what would be possible.

# %%
try:
    pointer.get()
except grid.GetNotPermittedError as error:
    print(error)

# %% [markdown]
# ## She computes where the data are
#
# The pointer is a torch tensor as far as code is concerned. Operations are recorded, not run here: shapes and errors
# are known at once, values stay where they are.

# %%
total = pointer.sum(0)
mean = pointer.mean(0)
print(total)
print(tuple(total.shape), total.dtype)

# %% [markdown]
# A pointer has no value here, so Python cannot decide anything by it, and says so.

# %%
try:
    if total[0] > 100:
        print("never reached")
except grid.RemoteValueError as error:
    print(error)

# %% [markdown]
# Taking the sum needs a right too. So Olivia gives Dana one: `aggregate` lets exact counts, sums and averages of whole
# columns leave, where at least ten people stand behind them. Read
# [what may leave a node](../explanation/what-may-leave.md) for what this does and does not protect.

# %%
try:
    total.get()
except grid.GetNotPermittedError as error:
    print(error)
grant = hospital.dataset(pointer.dataset).grant("dana@network", "aggregate", reason="Monthly report of the ward.")

# %%
clear = february.values
print("births ", pointer.count().get())
print("sum    ", total.get(), "in the clear:", clear.sum(0))
print("average", mean.get(), "in the clear:", clear.mean(0))
print("equal to the last bit:", torch.equal(total.get(), clear.sum(0)) and torch.equal(mean.get(), clear.mean(0)))

# %% [markdown]
# One row is no aggregate. Neither is a sum in which all rows but one were set to zero, or any other such trick: the
# node judges the *program*, before it runs, and lets only whole columns over all rows pass.

# %%
trick = (pointer[:, 0] * torch.eye(84, dtype=torch.float64)[2]).sum()
for value in (pointer[2], trick):
    try:
        value.get()
    except grid.GetNotPermittedError as error:
        print(error.details["possible"][1])

# %% [markdown]
# Bob may read, as Olivia said when she published.

# %%
bob = grid.connect(hospital_url, username="bob", password=phrase)
copy = bob.search("#February")[0].get()
print(tuple(copy.shape), "equal to what was published:", torch.equal(copy, clear))

# %% [markdown]
# ## An average over three nodes
#
# No value goes from node to node. Each node releases its own sum and count, where its owner has granted that, and Dana
# adds up. A node knows Dana from her first question on, which is refused; then it can give her a right.

# %%
found = search("#birth-records", nodes=3)
total, count = torch.zeros(2, dtype=torch.float64), 0
for name in sorted(found):
    pointer = found[name][0]
    if name != "hospital":
        try:
            pointer.count().get()
        except grid.GetNotPermittedError:
            owner = grid.connect(where["nodes"][name]["url"], username="olivia", password=phrase)
            grant = owner.dataset(pointer.dataset).grant("dana@network", "aggregate", reason="Monthly report.")
    total += pointer.sum(0).get()
    count += int(pointer.count().get())
print(count, "births, average", total / count)

together = torch.cat([births.month(number).values for number in (2, 3, 4)])
print(len(together), "in the clear:  ", together.mean(0))
print("equal:", torch.allclose(total / count, together.mean(0), rtol=1e-12, atol=0))

# %% [markdown]
# ## Five rows
#
# A pilot ward has had five births. Olivia publishes them, with the same grant.

# %%
records = grid.private_tensor(clear[:5].clone(), columns=births.COLUMNS, bounds=births.BOUNDS)
pilot = records.tag("#pilot-ward").describe("Five births of a pilot ward.").send(hospital)
grant = hospital.dataset(pilot.dataset).grant("dana@network", "aggregate", reason="Pilot.")

# %% [markdown]
# Fewer than ten people stand behind this sum. The grant does not answer; the error carries the way to **ask** instead.

# %%
weight = search("#pilot-ward")["hospital"][0][:, 0].sum()
try:
    weight.get()
except grid.GetNotPermittedError as error:
    print(error)
    request = error.request(reason="Total weight of the pilot ward, for its yearly report.")
print(request.state)

# %% [markdown]
# Olivia finds the request in the console of her node, or here. She reads what exactly would
# leave: the program in words.

# %%
asked = hospital.requests(state="submitted")[0]
print(asked.requester, "asks:", asked.reason)
print(asked.words.strip())
approved = asked.approve(reason="A total of five weights is fine for this report.")

# %% [markdown]
# The node runs the stored program again, without Dana's session, and keeps the answer. It is the same as often as she
# fetches it, and nobody else can.

# %%
answer = request.wait(timeout=60).get()
print(answer, "in the clear:", clear[:5, 0].sum(), "equal:", torch.equal(answer, clear[:5, 0].sum()))
print(request.status)

# %% [markdown]
# ## What the log knows
#
# Every release is in the hospital's audit log, which is signed and can be verified.

# %%
administrator = grid.connect(hospital_url, **where["nodes"]["hospital"]["admin"])
print("the log holds:", bool(administrator.audit(verify=True)))
left = [event for event in administrator.audit() if event.verb in ("value_released", "request_delivered")]
for event in left[:4]:
    print(f"{event.verb:<20}{event.actor}")

# %% [markdown]
# Where to go from here: [publish your own data](../how-to/publish.md), [ask for a value](../how-to/ask-for-a-value.md),
# [govern a node](../how-to/govern-a-node.md).
