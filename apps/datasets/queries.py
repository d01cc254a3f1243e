"""What may be known of a dataset, and what a worker must know. Who may know it is for `permissions` to say."""

from __future__ import annotations

from typing import Any

import msgspec

from apps.datasets.assets import AssetSpec
from apps.datasets.models import DatasetVersion
from gridclient.wire.messages import Column


def public_metadata(version: DatasetVersion) -> dict[str, Any]:
    """Everything about a dataset at this version that whoever may discover it sees, as plain JSON values."""
    dataset = version.dataset
    return {
        "id": str(dataset.pk),
        "slug": dataset.slug,
        "name": dataset.name,
        "description": dataset.description,
        "tags": dataset.typed_tags,
        "visibility": dataset.visibility,
        "version": version.number,
        "kind": version.kind,
        "shape": version.shape,
        "dtype": version.dtype,
        "rows_public": version.rows_public,
        "columns": version.columns,
        "max_rows_per_entity": version.max_rows_per_entity,
        "entities": version.entities,
        "missing": version.missing,
        "created": version.created.isoformat(),
        "sequence": str(version.sequence),
    }


def asset_spec(version: DatasetVersion) -> AssetSpec:
    """What a worker needs to map this version."""
    return AssetSpec(
        dataset=str(version.dataset_id),
        version=version.number,
        kind=version.kind,
        folder=str(version.folder),
        shape=list(version.shape),
        dtype=version.dtype,
        columns=msgspec.convert(version.columns, list[Column]),
        presence=version.presence,
        rows_public=version.rows_public,
        entities=version.entities,
        max_rows_per_entity=version.max_rows_per_entity,
        sequence=str(version.sequence),
    )
