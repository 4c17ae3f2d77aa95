"""The published forms of SBOM and provenance, as their own projects check them."""

from __future__ import annotations

from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage


def validate_sbom(text: str) -> None:
    """Fails unless ``text`` is CycloneDX 1.5 without anything that its schema does not know."""
    found = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    assert found is None, str(found)[:500]


def validate_provenance(document: dict[str, Any]) -> None:
    """Fails unless ``document`` is an in-toto statement with SLSA's predicate and no unknown field."""
    Statement.copy_from_pb(ParseDict(document, StatementMessage())).validate()
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    predicate = ParseDict(document["predicate"], Provenance())
    definition, details = predicate.build_definition, predicate.run_details
    assert definition.build_type
    assert definition.external_parameters.fields
    assert details.builder.id
    assert details.metadata.invocation_id
    for resource in [*definition.resolved_dependencies, *details.byproducts]:
        ResourceDescriptor.copy_from_pb(resource).validate()
        # the specification asks for more than that program does
        assert resource.uri or resource.digest or resource.content
