# %% [markdown]
# # Training on four nodes
#
# Four owners have images of handwritten digits. A data scientist trains one model on all of them, and no image leaves
# its node: the model travels instead, from node to node, and comes back trained.
#
# As in [the first tutorial](births.ipynb), you see both sides, and results are compared with the ones in the clear. To
# run it yourself, start an empty grid (a network and four nodes) in a terminal:
#
#     .venv/bin/python manage.py rungrid --dir data/grid --port 8000 --ready-file data/grid.json
#
# and this notebook in the folder of the project, with `GRID_READY=data/grid.json` in its environment.

# %%
import json
import os
import re
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import gridclient as grid
from demo import digits

where = json.loads(Path(os.environ["GRID_READY"]).read_text())
names = sorted(where["nodes"])
phrase = "a-long-demo-password"
torch.set_num_threads(1)  # a node computes with one thread: sums are taken in the same order here
hook = grid.TorchHook(torch)  # model.send(node) and model.get(), in place of grid.send(model, node) and grid.get(model)

# %% [markdown]
# ## Owners and a scientist
#
# Olivia owns data on every node. Dana has an account on the *network* only.

# %%
owners = {}
for name in names:
    with grid.connect(where["nodes"][name]["url"], **where["nodes"][name]["admin"]) as admin:
        admin.create_user("olivia", password=phrase, roles=["owner"])
    owners[name] = grid.connect(where["nodes"][name]["url"], username="olivia", password=phrase)
with grid.connect_network(where["network"]["url"], **where["network"]["admin"]) as operator:
    operator.create_user("dana", password=phrase, roles=["scientist"])

# %% [markdown]
# ## The owners publish
#
# scikit-learn brings 1,797 real images of 8 x 8 points. One in six is public, to test with; the others are dealt out to
# the four owners, who each publish images and labels. `entities_of` says that both are about the same people, row by
# row.

# %%
parts, test = digits.split(digits.load(), owners=4)
for name, part in zip(names, parts):
    images = grid.private_tensor(part.images, name="Digits", bounds=(0.0, 1.0))
    images = images.tag("#digits", "#images").describe("Handwritten digits.").send(owners[name])
    labels = grid.private_tensor(part.labels, name="Labels", bounds=(0, 9), entities_of=images)
    labels = labels.tag("#digits", "#labels").describe("Which digit each image shows.").send(owners[name])
    print(images)
print(len(test), "images to test with")

# %% [markdown]
# ## The scientist finds them
#
# The network only knows what the nodes announce, which takes a moment after publishing.

# %%
import time


def search(*terms, nodes):
    """Search until so many nodes have announced what is searched for."""
    until = time.monotonic() + 30
    while len(found := network.search(*terms)) < nodes and time.monotonic() < until:
        time.sleep(0.1)
    return found


network = grid.connect_network(where["network"]["url"], username="dana", password=phrase)
data, target = search("#digits", "#images", nodes=4), search("#digits", "#labels", nodes=4)
print(sorted(data))

# %% [markdown]
# ## A step of training
#
# Nothing here is special: a model, an optimiser, a loss. `model.send(node)` moves parameters and buffers to the node,
# *in place*: the optimiser, which was made before, still holds the same parameters.


# %%
def new_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def train(model, optimizer, images, labels):
    """One pass in batches of 32. Returns the last loss."""
    for first in range(0, len(images), 32):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[first : first + 32]), labels[first : first + 32])
        loss.backward()
        optimizer.step()
    return loss.detach()


model, optimizer = new_model()
x, y = data["hospital"][0], target["hospital"][0]
model.send(x.location)
loss = train(model, optimizer, x[:32], y[:32])
print(loss)
print(model[1].bias.shape, type(model[1].bias).__name__)

# %% [markdown]
# Weights and loss know of the images now. To take either of them is a release, and Dana has no right to it.

# %%
for take in (loss.get, model.get):
    try:
        take()
    except grid.GetNotPermittedError as error:
        refusal = error
        print(re.sub("[0-9a-f]{64}", "<hash of the program>", str(error)), end="\n\n")

# %% [markdown]
# Each error carries its request. Asked for is the whole state of the model, in one request; Olivia reads the program in
# words, and approves.

# %%
request = refusal.request(reason="Digits: one step of training.")
asked = owners["hospital"].requests(state="submitted")[0]
print(asked.words[:600], "...")
approved = asked.approve(reason="One step says little.")
state = request.wait(timeout=60).get()
print({name: tuple(values.shape) for name, values in state.items()})

# %% [markdown]
# ## The right to train
#
# For a whole training that is too slow, so the owners grant `train`: the state of a module may leave that was sent and
# trained, with the names and shapes that were sent, and its losses. This protects nobody from a determined analyst, and
# the page of the grant says so: [what may leave a node](../explanation/what-may-leave.md). A node knows Dana from her
# first question on, which is refused.

# %%
for name in names:
    for pointer in (data[name][0], target[name][0]):
        try:
            pointer.count().get()
        except grid.GetNotPermittedError:
            grant = owners[name].dataset(pointer.dataset).grant("dana@network", "train", reason="Digits.")

# %% [markdown]
# ## Rounds
#
# In each round the model visits every node. What the optimiser remembers (here its momentum) stays on the node where it
# was made, and is taken up again in the next round: it never goes to another node.

# %%
model, optimizer = new_model()
for number in range(5):
    losses = []
    for name in names:
        x, y = data[name][0], target[name][0]
        model.send(x.location)
        loss = train(model, optimizer, x, y)
        model.get()
        losses.append(f"{loss.get():.2f}")
    with torch.no_grad():
        right = (model(test.images).argmax(1) == test.labels).double().mean()
    print(f"round {number + 1}: {100 * right:.0f} % of the test images; losses {', '.join(losses)}")

# %% [markdown]
# The same training with all images in one place gives the same model, to the last bit. What stays on each node is an
# optimiser of its own here.

# %%
clear, first = new_model()
others = [torch.optim.SGD(clear.parameters(), lr=0.05, momentum=0.9) for _ in names[1:]]
for _ in range(5):
    for each, part in zip([first, *others], parts):
        train(clear, each, part.images, part.labels)
print("equal:", all(torch.equal(mine, other) for mine, other in zip(model.parameters(), clear.parameters())))

# %% [markdown]
# ## What the log knows
#
# Every state and every loss that left is an event in the log of the node that it left.

# %%
administrator = grid.connect(where["nodes"]["hospital"]["url"], **where["nodes"]["hospital"]["admin"])
print("the log holds:", bool(administrator.audit(verify=True)))
left = [event for event in administrator.audit() if event.verb in ("value_released", "request_delivered")]
for event in left[:4]:
    print(f"{event.verb:<20}{event.actor:<15}{event.payload.get('route', 'approved')}")

# %% [markdown]
# Where to go from here: [train a model of your own](../how-to/train-a-model.md),
# [what each right allows](../explanation/what-may-leave.md).
