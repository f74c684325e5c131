"""``publish``: a model folder becomes a model of ModelScope's hub."""
from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelscope_fastinst.plugin.publishing import Publication

MOST_LISTED = 10


def publish(args: argparse.Namespace) -> int:
    """Publishes, or with ``--dry-run`` says what would be published.

    Raises:
        PublishError, CardError, RecordError, HubError: see ``plugin.publishing.publish``.
    """
    from modelscope_fastinst.plugin import publishing
    done = publishing.publish(
        args.folder, args.id, token=args.token, visibility=args.visibility, licence=args.license,
        base_model=args.base_model, revision=args.revision, message=args.message, example=args.example,
        metrics=args.metrics, endpoint=args.endpoint, dry_run=args.dry_run, device=args.device, verbose=args.debug,
        widget=args.widget)
    print('\n'.join(report(done)))
    return 0


def report(publication: Publication) -> Iterator[str]:
    """What was published, or would be, line by line."""
    from modelscope_fastinst.card_file import front_matter_text
    width = max(map(len, publication.files))
    yield f'{publication.model_id}:'
    for name, (size, _) in publication.files.items():
        state = '' if publication.uploaded is None else 'uploaded' if name in publication.uploaded else 'as it was'
        yield f'  {name:<{width}}  {size / 1e3:>10,.1f} kB  {state}'.rstrip()
    left_out = list(publication.left_out.items())
    if left_out:
        yield 'left out:'
        yield from (f'  {name}: {reason}' for name, reason in left_out[:MOST_LISTED])
        if len(left_out) > MOST_LISTED:
            yield f'  and {len(left_out) - MOST_LISTED} more'
    if publication.found is not None:
        found = ', '.join(f'{number} {label}' for number, label in publication.found)
        yield f'in the example the model finds {found or "nothing; another picture may show more"}'
    yield from (f'note: {note}' for note in publication.notes)
    if publication.address is None:
        yield f'the front matter of the card:\n{front_matter_text(publication.card)}'
        yield 'nothing was sent and nothing written (--dry-run)'
    elif not publication.uploaded:
        yield f'the hub has all of this already ({publication.visibility}): {publication.address}'
    else:
        yield f'published ({publication.visibility}): {publication.address}'
