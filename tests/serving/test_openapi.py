"""The published OpenAPI document is the one that the service answers with."""

from serving.http.openapi import FILE, document, text


def test_the_published_document_is_current():
    assert FILE.read_text() == text(), "python -m serving.http.openapi writes it"


def test_every_operation_has_an_id_a_tag_a_summary_and_says_what_it_answers():
    ids = []
    for operations in document()["paths"].values():
        for operation in operations.values():
            ids.append(operation["operationId"])
            assert operation["tags"] and operation["description"]
            assert any(status.startswith("2") for status in operation["responses"]) and "401" in operation["responses"]
    assert len(set(ids)) == len(ids)
